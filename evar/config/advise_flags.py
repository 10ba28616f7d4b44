"""The flags of `evar advise`, each described once."""

from __future__ import annotations

from evar.config.flags import Flag

_WANTED, _JUDGED, _WHERE = "What must fit", "How it is judged", "Where things are"

ADVISE_FLAGS: tuple[Flag, ...] = (
    Flag(
        "licence",
        "text",
        "any|commercial",
        "commercial: only checkpoints whose licence is known to allow commercial use; a checkpoint with an unknown licence "
        "never fits (docs/advice.md, section Licences, has the table)",
        _WANTED,
        "any",
        "any",
    ),
    Flag(
        "max_seconds_per_second",
        "decimal",
        "X",
        "seconds of encoding for a second of audio, as this machine measured it",
        _WANTED,
        None,
        "no limit",
    ),
    Flag("max_width", "whole", "N", "numbers that a classifier reads of a clip", _WANTED, None, "no limit"),
    Flag(
        "max_parameters",
        "text",
        "N",
        "numbers that the network holds, such as 5000000 or 5M",
        _WANTED,
        None,
        "no limit",
    ),
    Flag(
        "labels",
        "whole",
        "N",
        "say what score to expect with N labelled clips, from rows that were trained on few (evar lineval "
        "--protocol=curve)",
        _JUDGED,
    ),
    Flag(
        "tie",
        "decimal",
        "POINTS",
        "two encoders tie where their difference is significantly smaller than this many percentage points",
        _JUDGED,
        2.0,
        "2",
    ),
    Flag("protocol", "text", "NAME", "rows of this protocol", _JUDGED, None, "the one that most encoders have"),
    Flag(
        "like",
        "names",
        "TASK,TASK",
        "measured tasks that are similar to a TASK without rows",
        _JUDGED,
        None,
        "of its kind and domain",
    ),
    Flag("out", "text", "DIR", "results folder, for a TASK", _WHERE, "results", "results"),
    Flag(
        "store",
        "text",
        "DIR",
        "feature store, to look for times of encoding that the results folder lacks",
        _WHERE,
        None,
        "$EVAR_STORE, the user's cache",
    ),
)
