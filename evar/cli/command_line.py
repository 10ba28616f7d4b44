"""The command line: `evar COMMAND ...` and, as scripts, `python lineval.py ...`.

Every command is one function. The words of a command line are checked against its signature before anything runs, and the
function is called with them as text.
"""

from __future__ import annotations

import inspect
import io
import sys
from collections.abc import Callable, Sequence

from evar.cli.advise import advise
from evar.cli.applying import predict, search, train
from evar.cli.catalogue import check, encoders, layers, tasks, verify
from evar.cli.distance import distance
from evar.cli.export import export
from evar.cli.features import embed, fuse, store
from evar.cli.finetune import finetune
from evar.cli.lineval import compare, lineval, rerun
from evar.cli.plot import plot
from evar.cli.report import report
from evar.cli.robust import robust
from evar.cli.sharing import audit, export_results, import_scores, leaderboard, merge
from evar.cli.tasks import fingerprint, prepare, task
from evar.cli.terminal import DONE, WRONG
from evar.cli.words import UsageError, check_words
from evar.config.disk import tell_disk_error
from evar.config.messages import PLAIN_ERRORS, discard_output, show_messages, write_text
from evar.config.registry import near_miss

COMMANDS: dict[str, Callable[..., int]] = {
    "lineval": lineval,
    "finetune": finetune,
    "robust": robust,
    "fuse": fuse,
    "encoders": encoders,
    "layers": layers,
    "check": check,
    "tasks": tasks,
    "task": task,
    "prepare": prepare,
    "verify": verify,
    "fingerprint": fingerprint,
    "embed": embed,
    "train": train,
    "predict": predict,
    "search": search,
    "export": export,
    "distance": distance,
    "store": store,
    "compare": compare,
    "advise": advise,
    "report": report,
    "rerun": rerun,
    "plot": plot,
    "merge": merge,
    "export-results": export_results,
    "audit": audit,
    "leaderboard": leaderboard,
    "import-scores": import_scores,
}


def main(prefix: Sequence[str] = ()) -> None:
    """Entry point of the console script; scripts give the name of their command as prefix."""
    for stream in (sys.stdout, sys.stderr):  # also for what other packages print
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=PLAIN_ERRORS)
    status = run([*prefix, *sys.argv[1:]])
    try:
        sys.stdout.flush()
    except (OSError, ValueError):  # the reader (`| head`) had enough
        discard_output(sys.stdout)
    sys.exit(status)


def run(words: Sequence[str]) -> int:
    """Carry out one command line and return its exit status."""
    if not words or words[0] in ("-h", "--help", "help"):
        write_text(_write_overview())
        return DONE
    name, arguments = words[0], list(words[1:])
    if name in ("--version", "version"):
        from evar import __version__

        write_text(__version__)
        return DONE
    try:
        if name not in COMMANDS:
            raise UsageError(f"no command {name!r}; {near_miss(name, COMMANDS)}")
        command = COMMANDS[name]
        if any(word in ("-h", "--help") for word in arguments):
            write_text(inspect.getdoc(command))
            return DONE
        with show_messages():
            return _call(command, check_words(name, command, arguments))
    except KeyboardInterrupt:
        write_text("\nstopped; the same command goes on where it stopped", sys.stderr)
        return 130
    except (ValueError, OSError, ImportError) as error:
        text = tell_disk_error(error)
        write_text(text if text.startswith("evar ") else f"evar {name}: {text}", sys.stderr)
        return WRONG


def _call(command: Callable[..., int], words: Sequence[str]) -> int:
    """Call the command with checked words; every value is text, so that a number stays as it was typed."""
    positionals = [word for word in words if not word.startswith("--")]
    flags = dict(word[2:].split("=", 1) for word in words if word.startswith("--"))
    return command(*positionals, **flags)


#: question of a user -> the commands that answer it
GROUPS = {
    "compare: which encoder, and which layer of it, serves my task?": [
        "lineval",
        "finetune",
        "robust",
        "compare",
        "advise",
        "report",
        "plot",
        "rerun",
    ],
    "use: give me vectors, or a classifier": [
        "embed",
        "search",
        "distance",
        "train",
        "predict",
        "export",
        "fuse",
        "store",
    ],
    "make: my own sounds, my own encoder": ["task", "prepare", "verify", "fingerprint", "check"],
    "share: results that others can check": ["merge", "export-results", "audit", "leaderboard", "import-scores"],
    "look: what is there?": ["encoders", "layers", "tasks"],
}


def _write_overview() -> str:
    import textwrap

    width = max(map(len, COMMANDS))
    lines = ["evar: which pre-trained audio representation, and which layer of it, serves your task."]
    for title, names in GROUPS.items():
        lines += ["", title]
        for name in names:
            summary = (inspect.getdoc(COMMANDS[name]) or "").splitlines()[0]
            lines += textwrap.wrap(
                summary, 98, initial_indent=f"  evar {name:{width}} ", subsequent_indent=" " * (width + 8)
            )
    return "\n".join([*lines, "", "evar COMMAND --help says more, with examples."])
