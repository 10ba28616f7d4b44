"""The encoder that a file was made with, loaded again; another one is refused, since its vectors mean something else."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from evar.config.encoder import names_own_code
from evar.numeric.device import pick_device
from evar.results import plain

if TYPE_CHECKING:
    from evar.encoders.base import Encoder


@dataclass(frozen=True)
class EncoderRequest:
    """How to load an encoder again, and how to know that it is the same.

    Attributes:
        file: path of the file that names it, for messages.
        name: as `evar.encoders.load_encoder` takes it.
        weights: likewise; None for the encoder's own.
        weights_label, weights_sha256: of the weights that the file was made with.
        options: that the encoder was built with.
        norm_stats: (mean, std) of its input, or None.
        again: what makes the file again with another encoder, for messages.
    """

    file: str
    name: str
    weights: str | None
    weights_label: str
    weights_sha256: str
    options: Mapping[str, Any]
    norm_stats: tuple[float, float] | None
    again: str


def load_same_encoder(
    request: EncoderRequest, weights: str | None = None, device: str = "auto", *, trust_code: bool = False
) -> Encoder:
    """Load the encoder that a file was made with.

    Args:
        request: what the file says of it.
        weights: where its checkpoint is on this machine, in place of what the file says.
        device: as for `load_encoder`.
        trust_code: import an encoder of an author's own that the file names; a file may be a stranger's.

    Returns:
        The encoder, in eval mode.

    Raises:
        ValueError: if the file names code that is not trusted, or the weights here are others than those of the file.
        OSError: if the checkpoint is not there.
        ImportError: if the encoder needs a package that is not installed.
    """
    from evar.encoders import load_encoder

    if names_own_code(request.name) and not trust_code:
        raise ValueError(
            f"{request.file} names code to be imported, {request.name}; if you trust whoever wrote the file, say "
            "--trust_code"
        )
    wanted = weights or request.weights
    if weights is None and _is_lost_path(wanted):
        raise FileNotFoundError(
            f"{request.file} was made with weights at {wanted}, where no file is; --weights=PATH says where they are now"
        )
    encoder = load_encoder(request.name, wanted, device=pick_device(device))
    if (options := plain(dict(encoder.options), "options")) != dict(request.options):
        raise ValueError(
            f"{request.file} was made with {request.name} of the options {dict(request.options)}, but here it has "
            f"{options}; is its YAML another one? Put the former back, or {request.again}"
        )
    if encoder.weights_sha256 != request.weights_sha256:
        raise ValueError(
            f"{request.file} was made with weights {request.weights_label} of {request.name} (SHA-256 "
            f"{request.weights_sha256[:10]}), but here they are {encoder.weights_label} ({encoder.weights_sha256[:10]}), "
            f"whose vectors mean something else; give the former with --weights=PATH, or {request.again}"
        )
    if request.norm_stats is not None and encoder.norm_stats is not None:
        encoder.norm_stats = request.norm_stats
    return encoder


def _is_lost_path(weights: str | None) -> bool:
    is_path = weights is not None and weights != "random" and "://" not in weights and not weights.startswith("hf:")
    return is_path and not os.path.exists(str(weights))
