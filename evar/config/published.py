"""Read published numbers: `config/published/NAME.yaml`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from evar.config.folders import find
from evar.config.reading import read
from evar.config.registry import near_miss


@dataclass(frozen=True)
class PublishedRow:
    """Scores of one encoder as its paper prints them.

    Attributes:
        label: as printed.
        encoder: our name of the same encoder and checkpoint; "" if we do not have it.
        scores: percent, one for each of the tasks.
        plus_minus: half of the interval, in the same form; empty if none is printed.
    """

    label: str
    scores: tuple[float, ...]
    encoder: str = ""
    plus_minus: tuple[float, ...] = ()


@dataclass(frozen=True)
class PublishedConfig:
    """One `config/published/NAME.yaml`: numbers that others printed, to be shown beside ours and never mixed with them.

    Attributes:
        name: the file's stem.
        title: short, for row labels.
        source: where exactly the numbers stand.
        citation: of the paper.
        protocol: how the numbers were made, as far as the source describes it.
        tasks: our names of the columns, or names that `other_tasks` explains.
        rows: encoders.
        beside: our protocols that do the same kind of thing; in tables of others the numbers are not shown.
        other_tasks: name of a task that we do not have -> its description.
        caveats: task -> why its numbers do not compare with ours.
    """

    name: str
    title: str
    source: str
    citation: str
    protocol: str
    tasks: tuple[str, ...]
    rows: tuple[PublishedRow, ...]
    beside: tuple[str, ...] = ("linear", "evar")
    other_tasks: dict[str, str] = field(default_factory=dict)
    caveats: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for key in ("source", "citation", "protocol"):
            if not getattr(self, key).strip():
                raise ValueError(f"{key} must say where the numbers come from, got nothing")
        for task in (*self.other_tasks, *self.caveats):
            if task not in self.tasks:
                raise ValueError(
                    f"other_tasks and caveats must name a task of the table, got {task!r}; {near_miss(task, self.tasks)}"
                )
        if not self.tasks or len(set(self.tasks)) != len(self.tasks):
            raise ValueError(f"tasks must name at least one task, and each once, got {list(self.tasks)}")
        labels = [row.label for row in self.rows]
        if not labels or len(set(labels)) != len(labels):
            raise ValueError(f"rows must hold at least one encoder, and each label once, got {labels}")
        for row in self.rows:
            if len(row.scores) != len(self.tasks) or len(row.plus_minus) not in (0, len(self.tasks)):
                raise ValueError(f"row {row.label!r} must have {len(self.tasks)} scores, one for each task")
            if not all(0 <= score <= 100 for score in (*row.scores, *row.plus_minus)):
                raise ValueError(f"scores of row {row.label!r} must lie in 0..100 percent, got {row.scores}")


def load_published_config(name: str) -> PublishedConfig:
    """Read and check published numbers.

    Args:
        name: of a file in `config/published`, or the path of a YAML file of your own, such as "my/paper.yaml". A path ends
            in .yaml or .yml; the file's stem is the name of the numbers.

    Raises:
        ValueError: if the name is unknown (near misses are named), or a key, a task, a row or a score is wrong; the file
            is named.
        FileNotFoundError: if there is no file of that path.

    Example:
        >>> load_published_config("msm_mae").title
        'MSM-MAE'
    """
    if not is_path(name):
        return read(find("published", name), PublishedConfig)
    path = Path(name).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"no file {path} with published numbers; examples/published_numbers.yaml shows one")
    return read(path, PublishedConfig)


def is_path(name: str) -> bool:
    """Tell whether a name of published numbers is a path to a file of the user's.

    Example:
        >>> is_path("evar"), is_path("paper.yaml")
        (False, True)
    """
    return name.lower().endswith((".yaml", ".yml"))
