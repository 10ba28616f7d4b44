"""The `prompts` of a task's YAML: sentences for its classes, for encoders that read text."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from evar.config.registry import near_miss

#: of tasks whose YAML has no templates
TEMPLATES = ("This is a sound of {}.", "a recording of {}", "{}")
PLACE = "{}"


@dataclass(frozen=True)
class Prompts:
    """Sentences that describe the classes of a task.

    Args:
        templates: sentences with "{}" in place of the name of a class; without any, those of `TEMPLATES` are used.
        names: class -> its name in words; other classes are named by their label, with spaces for underscores.
        unsuitable: why no sentence can describe the difference between the classes; "" if sentences can.

    Raises:
        ValueError: if a template has no "{}", a name is no text, or a task is unsuitable and has templates.

    Example:
        >>> Prompts(templates=("a sound",))
        Traceback (most recent call last):
        ...
        ValueError: a template of prompts must hold {} in place of the name of a class, got 'a sound'
    """

    templates: tuple[str, ...] = ()
    names: dict[str, str] = field(default_factory=dict)
    unsuitable: str = ""

    def __post_init__(self) -> None:
        for template in self.templates:
            if PLACE not in template:
                raise ValueError(
                    f"a template of prompts must hold {PLACE} in place of the name of a class, got {template!r}"
                )
        if len(set(self.templates)) != len(self.templates):
            raise ValueError(f"the templates of prompts must be different, got {list(self.templates)}")
        for label, name in self.names.items():
            if not isinstance(label, str) or not isinstance(name, str) or not name.strip():
                raise ValueError(
                    f"the names of prompts must be texts, got {label!r}: {name!r}; put both in quotes, as yes, no, on and "
                    "off are truth values in YAML"
                )
        if self.unsuitable and (self.templates or self.names):
            raise ValueError("prompts are either unsuitable or have templates and names, got both")

    def check_classes(self, classes: Iterable[str]) -> None:
        """Raise ValueError if a name is given to a class that the task does not have."""
        known = list(classes)
        for label in self.names:
            if known and label not in known:
                raise ValueError(f"prompts name {label!r}, but the task has no such class; {near_miss(label, known)}")
