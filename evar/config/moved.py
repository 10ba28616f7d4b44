"""New places of the classes of version 0.1, for users' YAML files that still name the old places."""

from __future__ import annotations

import warnings

#: old module -> new module
_MODULES = {
    "evar.attentive": "evar.probes.attentive",
    "evar.catalogue": "evar.data.catalogue",
    "evar.catalogue.environment": "evar.data.catalogue.environment",
    "evar.catalogue.hear": "evar.data.catalogue.hear",
    "evar.catalogue.music": "evar.data.catalogue.music",
    "evar.catalogue.speech": "evar.data.catalogue.speech",
    "evar.embedded": "evar.data.embedded",
    "evar.embedded.building": "evar.data.embedded.building",
    "evar.embedded.draw": "evar.data.embedded.draw",
    "evar.embedded.notes": "evar.data.embedded.notes",
    "evar.embedded.speech": "evar.data.embedded.speech",
    "evar.event_frames": "evar.probes.events",
    "evar.fewshot": "evar.probes.few_shot",
    "evar.multilabel": "evar.probes.multilabel",
    "evar.neighbours": "evar.probes.nearest",
    "evar.probes": "evar.probes.linear",
    "evar.regression": "evar.probes.ridge",
    "evar.trained": "evar.probes.network",
    "evar.tuning.running": "evar.finetune.run",
    "evar.weighted": "evar.probes.weighted_sum",
}


def find_new_place(path: str) -> str:
    """Return the new path of a class that has moved; any other path is returned unchanged.

    Args:
        path: "module:name", as YAML files write it.

    Returns:
        "module:name" of today.

    Warns:
        FutureWarning: if the place has changed. The old place is understood for one release.

    Example:
        >>> find_new_place("my_package.probes:Mine")
        'my_package.probes:Mine'
    """
    module, colon, name = path.rpartition(":")
    if module not in _MODULES:
        return path
    new = f"{_MODULES[module]}{colon}{name}"
    warnings.warn(
        f"{path} is now {new}; the next release will not find the old place, so please change it in your YAML file",
        FutureWarning,
        stacklevel=3,
    )
    return new
