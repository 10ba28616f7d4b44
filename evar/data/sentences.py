"""Sentences about the classes of a task, written from the `prompts` of its YAML."""

from __future__ import annotations

from evar.data.prompts import PLACE, TEMPLATES
from evar.data.task_config import TaskConfig

#: kinds of tasks whose labels are classes
KINDS = ("multiclass", "multilabel")


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
        ValueError: if the task's labels are not classes, or no sentence can describe their difference.

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
            f"{config.name} is a {config.kind} task, whose labels are not classes that a sentence could name"
        )
    if config.prompts.unsuitable:
        raise ValueError(f"{config.name} has no prompts: {config.prompts.unsuitable}")
    if not config.classes_from_index:  # such a task may name classes that a copy lacks
        config.prompts.check_classes(config.classes)
