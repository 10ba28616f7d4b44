"""The command that writes the page of a results folder."""

from __future__ import annotations

from typing import Any

from evar.cli.terminal import DONE
from evar.cli.words import UsageError, takes_flags
from evar.config.flag_tables import REPORT_FLAGS
from evar.config.messages import write_text
from evar.storage.mirror import at_hand


@takes_flags(REPORT_FLAGS)
def report(out: str = "results", **flags: Any) -> int:
    """One HTML file of a results folder, to explore and to listen to; without torch, and without a network.

    evar report [RESULTS] [flags]

    Examples:
      evar report                                        results/report.html
      evar report results --audio=none --file=share.html
      evar report results --audio=link --data_root=/data

    {flags}

    The sounds come from the tasks' folders, the maps from the feature store; if these are missing, the page says so.
    docs/report.md says how to read the page.
    """
    from pathlib import Path

    from evar import results
    from evar.webpage import write_report

    folder = Path(at_hand(out))
    if not results.load_all(folder) and not results.load_failures(folder):
        raise UsageError(f"no results below {out}/runs; run `evar lineval` first or name the folder")
    if flags["published"] == "none":
        flags["published"] = ""
    path = write_report(folder, **flags)
    write_text(f"written: {path} ({path.stat().st_size / 1e6:.1f} MB)")
    return DONE
