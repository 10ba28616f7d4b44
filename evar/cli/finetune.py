"""The command that fine-tunes encoders."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from evar.cli.lineval import write_page
from evar.cli.terminal import DONE, SOME_FAILED
from evar.cli.words import takes_flags
from evar.config.flag_tables import FINETUNE_FLAGS
from evar.config.messages import silence, write_text


@takes_flags(FINETUNE_FLAGS)
def finetune(encoders: str = "", tasks: str = "", **flags: Any) -> int:
    """Fine-tuning: encoder and head trained end to end; rows of the same table as `evar lineval`.

    evar finetune ENCODERS TASKS [flags]        (the same: python finetune.py ...)

    The test clips choose nothing: the weights of the epoch with the best validation score are tested once. Where a task has
    no validation split, one is drawn from its training clips by group. Fold tasks train a fresh model for every fold.

    Examples:
      evar finetune crepe.tiny fsdd_digit --protocol=finetune_quick --data_root=/data    minutes on a laptop
      evar finetune ast esc50 --learning_rate=1e-5 --mixup=0.5
      evar lineval results/finetuned/ID/crepe.tiny_fsdd_digit.yaml esc10 --layers=all    the result, as an encoder

    Hyper-parameters default to the protocol's; rows with others make a table of their own.

    {flags}

    Stop it whenever you like: the same command goes on from its last checkpoint. Several devices: `accelerate launch
    finetune.py ...`. Exit status: 0 all rows are there, 1 some cell failed, 2 the command line is wrong.
    """
    from evar.finetune.request import parse_tuning
    from evar.finetune.run import run_tuning
    from evar.finetune.spec import resolve_tuning
    from evar.report import format_terminal_table, write_tables_and_plots
    from evar.report.guard import try_to_write

    quiet, with_report, with_cost = (flags.pop(name) for name in ("quiet", "report", "cost"))
    settings = parse_tuning(encoders, tasks, flags)
    with silence(quiet):
        outcome = run_tuning(resolve_tuning(settings))
    if int(os.environ.get("RANK", "0")):  # the first process writes and says what there is
        return SOME_FAILED if outcome.failures else DONE
    written = try_to_write(Path(settings.out), lambda: write_tables_and_plots(settings.out, with_cost=with_cost))
    if with_report and written:
        written += write_page(settings.out, flags)
    write_text("\n" + format_terminal_table(outcome.rows, outcome.failures, Path(settings.out), with_cost=with_cost))
    write_text(f"\n{len(outcome.rows)} rows, {outcome.n_new} of them new")
    if written:
        write_text(f"written to {flags['out']}: " + ", ".join(path.name for path in written))
    return SOME_FAILED if outcome.failures or not written else DONE
