"""The command that says which encoder and layer to read."""

from __future__ import annotations

from typing import Any

from evar.cli.terminal import DONE
from evar.cli.words import takes_flags
from evar.config.advise_flags import ADVISE_FLAGS
from evar.config.messages import write_text


@takes_flags(ADVISE_FLAGS)
def advise(task: str, **flags: Any) -> int:
    """Which encoder, and which layer of it, for me: what fits, what is better, what ties, and what the data cannot tell.

    evar advise TASK|RESULTS [flags]

    TASK is a task whose rows lie in the results folder of --out. RESULTS is a results folder: it answers for each of its
    tasks, and over all of them. Nothing is encoded, and torch is not needed.

    Examples:
      evar advise esc10 --licence=commercial --max_seconds_per_second=0.1
      evar advise my_birds --labels=200 --max_parameters=5M
      evar advise results

    {flags}

    Encoder and layer are chosen on validation clips and reported with test scores. A TASK without rows is answered from
    similar tasks, with the command that measures the shortlist. It writes advice.md, advice.json, and a picture where costs
    were measured. docs/advice.md says how to read them.
    """
    from evar.advising import advise as give_advice

    found = give_advice(task, **flags)
    write_text(found.text)
    write_text("\nwritten: " + ", ".join(str(path) for path in found.files))
    return DONE
