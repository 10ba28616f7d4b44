"""Read a protocol: `config/protocols/NAME.yaml`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evar.config.folders import find
from evar.config.reading import load_every, read, read_mapping

#: words that choose the input statistics; evar.extraction.input_statistics explains them
NORM_STATS = ("default", "train", "task")


@dataclass(frozen=True)
class ProtocolConfig:
    """One `config/protocols/NAME.yaml`: the only place for hyper-parameters.

    Attributes:
        name: the file's stem.
        version: raise it when the same name gives other numbers.
        description: one sentence for tables and `--help`.
        probe: "module:Class" or "path/to/file.py:Class" of a probe, see `evar.probes.protocol`.
        probes: kind of task -> "module:Class" that takes its place there, with the same params.
        params: its keyword arguments.
        refit: clips on which the chosen setting is fitted again before the test: "train" or "train_and_valid".
        norm_stats: for encoders that normalise their input by statistics: which statistics they use, unless the command line
            says otherwise:
            "default" (what each encoder's paper does), "train" or "task".
        crop: "task" takes the part of a file that the task says; "by_role" takes it at random for training and validation
            clips (by seed) and from the start for test clips, as EVAR does.
        validation_parts: if no validation split is published, the training clips are divided into this number of parts, and
            one of them is used for validation.
        seeds: how many, unless the command line says.
        fusion: of all layers, for a protocol whose probe is made for it; "none" leaves it to the command line.
        searched: parameters that `--learning_rate=search` puts in place of those in params.
        frame_seconds: None for probes that read one vector a clip; a number for those that read frames: each is the mean
            over this many seconds; 0 keeps the frames of the encoder.
        metric: of the rows, for protocols whose scores are of another kind than the task's; "" takes the task's own.
    """

    name: str
    version: str
    description: str
    probe: str
    params: dict[str, Any]
    refit: str
    norm_stats: str = "default"
    probes: dict[str, str] = field(default_factory=dict)
    crop: str = "task"
    validation_parts: int = 5
    seeds: int = 1
    fusion: str = "none"
    searched: dict[str, Any] = field(default_factory=dict)
    frame_seconds: float | None = None
    metric: str = ""

    def __post_init__(self) -> None:
        if self.frame_seconds is not None and (self.frame_seconds < 0 or self.crop != "task"):
            raise ValueError(
                f"frame_seconds must be 0 or more and goes with crop: task, got {self.frame_seconds} and {self.crop!r}"
            )
        if self.crop not in ("task", "by_role"):
            raise ValueError(f"crop must be task or by_role, got {self.crop!r}")
        if self.validation_parts < 2 or self.seeds < 1:
            raise ValueError(
                f"validation_parts must be at least 2 and seeds at least 1, got {self.validation_parts} and {self.seeds}"
            )
        if self.refit not in ("train", "train_and_valid"):
            raise ValueError(f"refit must be train or train_and_valid, got {self.refit!r}")
        if self.norm_stats not in NORM_STATS:
            raise ValueError(f"norm_stats must be {', '.join(NORM_STATS)}, got {self.norm_stats!r}")


def load_protocol_config(name: str) -> ProtocolConfig:
    """Read `protocols/NAME.yaml`.

    Args:
        name: of the YAML; or "module:Class" or "path/to/file.py:Class" of a probe, see `evar.probes.protocol`. It is then
            used with the defaults of its parameters, and is not fitted again on the validation clips.

    Raises:
        ValueError: if there is no such protocol, it is for fine-tuning, or a key is unknown, missing or ill-typed.

    Example:
        >>> load_protocol_config("linear").refit, load_protocol_config("examples/my_probe.py:DiscriminantProbe").name
        ('train_and_valid', 'my_probe:DiscriminantProbe')
    """
    if ":" in name:
        file, _, class_name = name.rpartition(":")
        short = f"{Path(file).stem}:{class_name}" if file.endswith(".py") else name
        return ProtocolConfig(
            short, "own", f"The probe {name}, with the defaults of its parameters.", name, {}, "train"
        )
    path = find("protocols", name)
    if is_tuning(path):
        raise ValueError(f"protocol {name} is for finetune.py (evar finetune), not for a probe of frozen embeddings")
    return read(path, ProtocolConfig)


def is_tuning(path: Path) -> bool:
    """Tell whether the YAML of a protocol describes fine-tuning (True) or a probe (False)."""
    return read_mapping(path).get("kind") == "finetune"


def probe_protocols() -> list[str]:
    """Return the names of the protocols that `lineval.py` takes."""
    mappings, _ = load_every("protocols", lambda name: read_mapping(find("protocols", name)))
    return [name for name, mapping in mappings.items() if mapping.get("kind") != "finetune"]
