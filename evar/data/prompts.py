"""Sentences about the classes of a task, for encoders that read text: the `prompts` of its YAML."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from evar.config.registry import near_miss

if TYPE_CHECKING:
    from evar.data.task_config import TaskConfig

#: for tasks whose YAML has no templates
TEMPLATES = ("This is a sound of {}.", "a recording of {}", "{}")
PLACE = "{}"
#: kinds of tasks whose labels are classes
KINDS = ("multiclass", "multilabel")


@dataclass(frozen=True)
class Prompts:
    """How the classes of a task are said in words.

    Args:
        templates: sentences with "{}" where the name of a class stands; none: those of `TEMPLATES`.
        names: class -> its name in words; of other classes the label itself is taken, with spaces for underscores.
        unsuitable: why no sentence can tell the classes apart; "" where sentences can.

    Raises:
        ValueError: if a template has no "{}", a name is no text, or a task is unsuitable and has templates.

    Example:
        >>> Prompts(templates=("a sound",))
        Traceback (most recent call last):
        ...
        ValueError: a template of prompts must hold {} where the name of a class stands, got 'a sound'
    """

    templates: tuple[str, ...] = ()
    names: dict[str, str] = field(default_factory=dict)
    unsuitable: str = ""

    def __post_init__(self) -> None:
        for template in self.templates:
            if PLACE not in template:
                raise ValueError(
                    f"a template of prompts must hold {PLACE} where the name of a class stands, got {template!r}"
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
                raise ValueError(f"prompts name {label!r}, which is none of the classes; {near_miss(label, known)}")


def list_templates(config: TaskConfig) -> tuple[str, ...]:
    """Return the templates of a task's prompts.

    Example:
        >>> from evar.data.task_config import load_task_config
        >>> list_templates(load_task_config("esc10"))[0]
        'This is a sound of {}.'
    """
    return config.prompts.templates or TEMPLATES


def name_classes(config: TaskConfig) -> dict[str, str]:
    """Return the name in words of every class of a task.

    Args:
        config: of the task, with its classes.

    Example:
        >>> from evar.data.task_config import load_task_config
        >>> name_classes(load_task_config("esc10"))["clock_tick"]
        'a ticking clock'
    """
    return {label: config.prompts.names.get(label, label.replace("_", " ").strip()) for label in config.classes}


def write_prompts(config: TaskConfig) -> list[list[str]]:
    """Write a sentence for every template and class of a task.

    Args:
        config: of the task, with its classes.

    Returns:
        (templates, classes) sentences.

    Raises:
        ValueError: if the task's labels are no classes, or no sentence can tell them apart.

    Example:
        >>> from evar.data.task_config import load_task_config
        >>> write_prompts(load_task_config("esc10"))[0][:2]
        ['This is a sound of a barking dog.', 'This is a sound of rain.']
    """
    require_prompts(config)
    names = name_classes(config).values()
    return [[template.replace(PLACE, name) for name in names] for template in list_templates(config)]


def require_prompts(config: TaskConfig) -> None:
    """Raise unless sentences can be written about the classes of a task.

    Raises:
        ValueError: with the reason.
    """
    if config.kind not in KINDS:
        raise ValueError(
            f"{config.name} is a {config.kind} task, whose labels are no classes that a sentence could name"
        )
    if config.prompts.unsuitable:
        raise ValueError(f"{config.name} has no prompts: {config.prompts.unsuitable}")
