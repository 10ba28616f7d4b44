"""The command that tests probes on altered clips."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

from evar.cli.terminal import DONE, SOME_FAILED
from evar.cli.words import takes_flags
from evar.config.messages import silence, write_text
from evar.config.own_code import call_nothing
from evar.config.robust_flags import ROBUST_FLAGS
from evar.storage.mirror import at_hand


@takes_flags(ROBUST_FLAGS)
def robust(encoders: str = "", tasks: str = "", **flags: Any) -> int:
    """Fit probes on clean clips, test them on altered ones: which layer survives noise, rooms, codecs, a telephone?

    evar robust [ENCODERS TASKS | GRID] [flags]

    Each test clip is altered in every way at the recording's own rate, decoded once, and encoded once for each version, all
    layers in one pass. Training and validation clips stay clean, and so do all choices of settings. The vectors go to the
    same store as those of clean clips; a second run encodes nothing. robustness.md shows the loss of each layer with its
    95 % interval and a paired test on the same clips; robustness.csv and .json hold every number; robustness_TASK.png
    shows layers against alterations, and robustness_TASK_ENCODER.png the scores against the severity.

    The alterations are white_noise, pink_noise, level, reverberation, telephone, low_pass, resampling, mp3, opus, crop,
    time_shift and clipping; config/alterations holds one YAML for each, and yours may name functions of your own.

    Examples:
      evar robust crepe.tiny fsdd_digit --alterations=telephone,noise --data_root=/data
      evar robust logmel,crepe.tiny esc10 --limit=20 --dry_run                 how many clips would be encoded
      evar robust crepe.tiny esc10 --alterations=mp3 --severities=mp3=64/24    other bit rates
      evar robust crepe.tiny esc10 --alterations=noise --background=crowd.wav  and a recording of yours

    {flags}

    Exit status: 0 all numbers are there, 1 some cell failed, 2 the command line is wrong.
    """
    from evar.robustness.measuring import describe_robustness, parse_robustness, run_robustness

    out, dry_run, quiet = flags["out"], flags.pop("dry_run"), flags.pop("quiet")
    with call_nothing() if dry_run else nullcontext():
        request = parse_robustness(encoders, tasks, flags)
        if dry_run:
            write_text(describe_robustness(request))
            return DONE
    from evar.report import write_tables_and_plots
    from evar.report.guard import try_to_write
    from evar.report.robustness import format_robustness

    with silence(quiet):
        outcome = run_robustness(request)
    folder = Path(at_hand(out))
    written = try_to_write(folder, lambda: write_tables_and_plots(folder))
    write_text("\n" + format_robustness(outcome.records, folder))
    write_text(
        f"\n{len(outcome.records)} records of {len(outcome.rows)} rows; {outcome.n_encoded} clean and {outcome.n_altered} "
        "altered clips encoded"
    )
    for failure in outcome.failures:
        write_text(f"FAILED {failure.cell['encoder']} x {failure.cell['task']}: {failure.reason}")
    named = ", ".join(path.name for path in written if path.name.startswith("robustness"))
    if named:
        write_text(f"written to {out}: {named}")
    return SOME_FAILED if outcome.failures or not written else DONE
