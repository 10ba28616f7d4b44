"""The flags of `evar distance`, each described once; those of `evar lineval` mean the same."""

from __future__ import annotations

from dataclasses import replace

from evar.config.flag_tables import LINEVAL_FLAGS
from evar.config.flags import Flag

_LINEVAL = {flag.name: flag for flag in LINEVAL_FLAGS}

#: the flags of `evar distance` beside the encoder and the output, in the order of its help
DISTANCE_FLAGS: tuple[Flag, ...] = (
    replace(_LINEVAL["layers"], help="layers, each by itself; a number is a position: 0 the first layer, -1 the last"),
    Flag(
        "window",
        "text",
        "clip|frame|SECONDS",
        "what a vector stands for: a file, pooled over time as the layer declares; a frame of the encoder; or the mean of "
        "the frames within this many seconds",
        "How",
        "clip",
        "clip",
    ),
    Flag("seed", "whole", "N", "seed of the random parts of the extrapolation", "How", 0, "0"),
    replace(_LINEVAL["weights"], help="another checkpoint; random is the untrained baseline"),
    _LINEVAL["store"],
    _LINEVAL["device"],
    _LINEVAL["batch_size"],
    _LINEVAL["quiet"],
)
