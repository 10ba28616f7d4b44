"""The flags of `evar train` and `evar search`, each described once; those of `evar lineval` mean the same."""

from __future__ import annotations

from dataclasses import replace

from evar.config.flag_tables import LINEVAL_FLAGS
from evar.config.flags import Flag

_EXAMPLES, _WHAT_SHOWN, _HOW, _RUN = "What is looked for", "What is shown", "How", "How it runs"
_LINEVAL = {flag.name: flag for flag in LINEVAL_FLAGS}

#: the flags of `evar train`, in the order of its help; those of lineval mean the same
TRAIN_FLAGS: tuple[Flag, ...] = (
    replace(
        _LINEVAL["layers"],
        help="the layer to read, or several with --fusion; all: the layer with the best score on validation clips",
    ),
    replace(
        _LINEVAL["fusion"],
        takes="none|concat|average|weighted",
        help="make one feature of the layers instead",
    ),
    replace(
        _LINEVAL["protocol"],
        takes="NAME",
        help="whose probe is fitted, one of linear, weighted, evar, hear, mlp and prototype",
    ),
    _LINEVAL["learning_rate"],
    replace(_LINEVAL["weights"], help="another checkpoint; random is the untrained baseline"),
    _LINEVAL["norm_stats"],
    _LINEVAL["limit"],
    _LINEVAL["skip_bad"],
    _LINEVAL["data_root"],
    _LINEVAL["store"],
    _LINEVAL["device"],
    _LINEVAL["batch_size"],
    _LINEVAL["quiet"],
)

#: the flags of `evar search` beside the examples that are sounds, in the order of its help
SEARCH_FLAGS: tuple[Flag, ...] = (
    Flag(
        "text",
        "text",
        '"A SENTENCE"',
        "one more example, for vectors of encoders that read text (their joint layer)",
        _EXAMPLES,
    ),
    Flag("unlike_weight", "decimal", "X", "how much the mean of --unlike counts", _EXAMPLES, 0.5, "0.5"),
    Flag("k", "whole", "N", "rows that are shown (-k N is short for it)", _WHAT_SHOWN, 20, "20"),
    Flag("layer", "text", "NAME", "the feature to search in, of a file with several", _HOW, None, "the only one"),
    Flag(
        "index",
        "text",
        "exact|faiss",
        "faiss needs pip install 'evar-audio[faiss]' and finds the same rows",
        _HOW,
        "exact",
        "exact",
    ),
    Flag(
        "encoder", "text", "NAME", "the encoder of the examples, if the one that the file names cannot be loaded", _HOW
    ),
    Flag("weights", "text", "PATH", "where the encoder's checkpoint is now", _HOW),
    Flag("device", "text", "auto|cpu|cuda|mps", "where the encoder runs", _RUN, "auto", "auto"),
    Flag(
        "trust_code",
        "switch",
        "",
        "import the code of an encoder that the file names (only if you trust who wrote it)",
        _RUN,
        False,
    ),
    _LINEVAL["quiet"],
)
