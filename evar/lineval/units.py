"""Divide a grid into units of work that share an encoder and its stored features."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence

from evar import config as configs
from evar.experiment.settings import Settings


def units(settings: Settings) -> list[Settings]:
    """Parts of a grid that may run at the same time, in the grid's order.

    An encoder and its variants stay together, since a variant beside its base shows its own feature only.

    Example:
        >>> grid = Settings(("logmel", "ge2e"), ("esc10", "gm_pitch"))
        >>> [(*one.encoders, *one.tasks) for one in units(grid)][:2]
        [('logmel', 'esc10'), ('logmel', 'gm_pitch')]
    """
    families: dict[str, list[str]] = {}
    for name in settings.encoders:
        base = configs.load_encoder_config(name).base
        families.setdefault(base if base in settings.encoders else name, []).append(name)
    cut = []
    for family in families.values():
        export = settings.export
        if export and len(settings.encoders) > 1 and len(family) == 1:
            export = f"{family[0]}.{export}"  # the name that it has in the whole grid
        tasks = [settings.tasks] if settings.fusion == "search" else [(task,) for task in settings.tasks]
        for of_unit in tasks:
            cells = [f"{encoder}:{task}" for encoder in family for task in of_unit if settings.wants(encoder, task)]
            if cells:
                cut.append(
                    dataclasses.replace(
                        settings,
                        encoders=tuple(family),
                        tasks=of_unit,
                        weights=join_weights(settings, family),
                        export=export,
                        only=tuple(cells) if settings.only else (),
                        engine="local",
                        jobs=1,
                        address=None,
                    )
                )
    return cut


def label_unit(unit: Settings) -> str:
    return f"{', '.join(unit.encoders)} x {', '.join(unit.tasks)}"


def join_weights(settings: Settings, encoders: Sequence[str], absolute: bool = False) -> str | None:
    """--weights for these encoders alone; files by absolute path where another working folder is to find them."""
    found = [(name, what) for name in encoders if (what := settings.weights_of(name)) is not None]
    said = [f"{name}={os.path.abspath(what) if absolute and os.path.exists(what) else what}" for name, what in found]
    return ",".join(said) or None
