"""The flags of `evar robust`: its own, and those of `evar lineval` that decide clean rows."""

from __future__ import annotations

from dataclasses import replace

from evar.config.flag_tables import LINEVAL_FLAGS
from evar.config.flags import Flag

_OF_LINEVAL = {flag.name: flag for flag in LINEVAL_FLAGS}
_ALTERED = "How test clips are altered"

#: the flags of `evar robust`, in the order of its help
ROBUST_FLAGS: tuple[Flag, ...] = (
    Flag(
        "alterations",
        "names",
        "all|NAME,NAME|FILE.yaml",
        "names in config/alterations, families (noise, band, codec, time), or files of your own",
        _ALTERED,
        "all",
        "all",
    ),
    Flag(
        "severities",
        "text",
        "NAME=VALUE/VALUE,...",
        "other severities than those of the YAML files, such as white_noise=20/10,mp3=32",
        _ALTERED,
    ),
    Flag(
        "background",
        "text",
        "FILE",
        "a recording, such as a crowd, to mix in at the ratios of white noise: one alteration more",
        _ALTERED,
    ),
    replace(_OF_LINEVAL["layers"], default="all", shown_default="all"),
    replace(
        _OF_LINEVAL["fusion"],
        takes="none|concat|average|pca|weighted",
        help="make one feature of the layers instead of testing each",
    ),
    replace(_OF_LINEVAL["protocol"], takes="NAME", help="hyper-parameters, config/protocols/NAME.yaml; one a run"),
    *(
        _OF_LINEVAL[name]
        for name in (
            *("seeds", "learning_rate", "weights", "norm_stats", "limit", "skip_bad"),
            *("data_root", "out", "store", "device", "batch_size", "quiet"),
        )
    ),
    replace(
        _OF_LINEVAL["dry_run"],
        help="print how many altered clips would be encoded, and what they take on disk; compute nothing",
    ),
)
