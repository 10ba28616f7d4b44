"""Fine-tuning protocols: `config/protocols/finetune*.yaml` as checked data."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field, fields, replace
from typing import Any

from evar import config as configs
from evar.config.protocol import ProtocolConfig

OPTIMIZERS = ("sgd", "adamw", "lars")
#: settings of a protocol that name it or choose others, and are no hyper-parameters
_NO_PARAMS = ("name", "kind", "version", "description", "encoders", "tasks", "seeds", "validation_parts", "norm_stats")


@dataclass(frozen=True)
class TuningProtocol:
    """One `config/protocols/finetune*.yaml`: the only place for hyper-parameters of fine-tuning.

    Attributes:
        name: the file's stem.
        kind: "finetune"; the protocol of a probe has another kind.
        version: raise it when the same name gives other numbers.
        description: one sentence for tables and `--help`.
        epochs: passes over the training clips, at most.
        batch_size: clips a step.
        accumulate: steps whose gradients are summed before the weights move.
        optimizer: "sgd" (momentum 0.9), "adamw" (betas 0.9, 0.95) or "lars" (momentum 0.9).
        learning_rate: highest one of the encoder, after warm-up.
        head_learning_rate: of the head; None takes that of the encoder.
        weight_decay: decoupled (adamw), else added to the gradient.
        warmup_epochs: the rate rises linearly from 0, by iteration; it then falls along a cosine.
        min_learning_rate: where the cosine ends, as a share of the highest.
        head_epochs: first epochs in which only the head is trained.
        layers: "default" (concatenated), "weighted" (learnable softmax sum of all layers, equally wide), or layer names
            joined by "+".
        freeze: "none", "frontend" (a trained front-end, such as the convolutions of wav2vec2), "encoder" (only the head is
            trained, on augmented input), or the first words of the names of the parameters that stay as they are, joined
            by "+" ("conv_block1+conv_block2").
        train_frontend: train the mel filters too, for encoders that have them (weights below 0 count as 0).
        frozen_norms: keep the encoder's batch normalisations at their stored statistics.
        layer_decay: learning rate of each block of the encoder as a share of the next deeper one.
        loss_over_classes: divide the loss by the number of classes, as a mean over all outputs does.
        label_smoothing: share of the target that is spread over all classes.
        class_weights: weigh classes by their inverse frequency in the training clips.
        balanced: draw clips so that labels come about equally often (multilabel).
        mixup: alpha of the Beta distribution of waveform mixup, by sample; 0 for none.
        freq_mask, time_mask: SpecAugment: largest number of mel bands and frames masked, by sample; 0 for none, and for
            encoders that have no log-mel.
        rrc: random resize crop of the log-mel, by sample.
        time_patch_out, freq_patch_out: shares 0..1 of the columns (stretches of time) and rows (frequency bands) of patches
            that are hidden from the network, by sample, for encoders that have patches (ast, msm_mae).
        gain_db: largest gain or attenuation, by sample; 0 for none.
        noise_db: level of white noise against the clip's, at most; None for none.
        shift_seconds: largest circular shift; 0 for none.
        random_crop: training clips start at random in their file.
        clip_norm: largest norm of the gradient; None for no limit.
        ema: share of the running mean of weights that is kept at each step; 0 for none.
        patience: stop after this number of epochs without improvement on validation clips; None never.
        compile: train through `torch.compile`; the last digits may differ from those without.
        amp: "no", "bf16" or "fp16", on devices that have it.
        encoders: name -> settings that replace these for one encoder (a name before its dot counts for its family).
        tasks: name -> settings that replace these for one task, after those of the encoder.
        seeds: how many, unless the command line says.
        validation_parts: where no validation is published, one of this many parts of the training clips is.
        norm_stats: as in `evar.config.protocol.ProtocolConfig`.
    """

    name: str
    kind: str
    version: str
    description: str
    epochs: int
    batch_size: int
    learning_rate: float
    accumulate: int = 1
    optimizer: str = "adamw"
    head_learning_rate: float | None = None
    weight_decay: float = 0.0
    warmup_epochs: int = 0
    min_learning_rate: float = 0.0
    head_epochs: int = 0
    layers: str = "default"
    freeze: str = "none"
    frozen_norms: bool = False
    train_frontend: bool = False
    layer_decay: float = 1.0
    loss_over_classes: bool = False
    label_smoothing: float = 0.0
    class_weights: bool = False
    balanced: bool = False
    mixup: float = 0.0
    freq_mask: int = 0
    time_mask: int = 0
    rrc: bool = False
    time_patch_out: float = 0.0
    freq_patch_out: float = 0.0
    gain_db: float = 0.0
    noise_db: float | None = None
    shift_seconds: float = 0.0
    random_crop: bool = True
    clip_norm: float | None = None
    ema: float = 0.0
    patience: int | None = None
    amp: str = "no"
    compile: bool = False
    encoders: dict[str, Any] = field(default_factory=dict)
    tasks: dict[str, Any] = field(default_factory=dict)
    seeds: int = 1
    validation_parts: int = 5
    norm_stats: str = "default"

    def __post_init__(self) -> None:
        if self.kind != "finetune":
            raise ValueError(f"kind must be finetune, got {self.kind!r}")
        for name, known in (("optimizer", OPTIMIZERS), ("amp", ("no", "bf16", "fp16"))):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be {' or '.join(known)}, got {getattr(self, name)!r}")
        for name in ("epochs", "batch_size", "accumulate", "seeds"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("warmup_epochs", "head_epochs", "mixup", "freq_mask", "time_mask", "gain_db", "shift_seconds"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        for name in ("min_learning_rate", "label_smoothing", "ema", "time_patch_out", "freq_patch_out"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must lie in 0..1, got {getattr(self, name)}")
        if self.train_frontend and self.freeze in ("frontend", "encoder"):
            raise ValueError(f"train_frontend and freeze={self.freeze} contradict each other; leave one out")
        if not self.learning_rate > 0 or not 0 < self.layer_decay <= 1 or self.validation_parts < 2:
            raise ValueError(
                f"learning_rate must be above 0, layer_decay in 0..1 and validation_parts at least 2, got "
                f"{self.learning_rate}, {self.layer_decay} and {self.validation_parts}"
            )

    @property
    def params(self) -> dict[str, Any]:
        """Every hyper-parameter by name."""
        return {entry.name: getattr(self, entry.name) for entry in fields(self) if entry.name not in _NO_PARAMS}

    def for_cell(self, encoder: str, task: str) -> TuningProtocol:
        """Replace general values by those that the protocol sets for one encoder, then for one task.

        Raises:
            ValueError: if these name an unknown setting.
        """
        family = encoder.partition(".")[0]
        given: dict[str, Any] = {}
        for found in (self.encoders.get(family), self.encoders.get(encoder), self.tasks.get(task)):
            given |= found or {}
        return change_protocol(self, given, f"protocol {self.name}")

    def as_probe_protocol(self) -> ProtocolConfig:
        """Return the values that rows of the common table need."""
        return ProtocolConfig(
            self.name, self.version, self.description, "evar.finetune.rounds:Tuned", self.params, "train",
            norm_stats=self.norm_stats, validation_parts=self.validation_parts, seeds=self.seeds,
        )  # fmt: skip


def load_tuning_protocol(name: str) -> TuningProtocol:
    """Read `protocols/NAME.yaml` of kind finetune.

    Raises:
        ValueError: if no protocol has that name, it is for a probe, or its keys or values do not fit.
    """
    path = configs.find("protocols", name)
    if not configs.is_tuning(path):
        known = [other for other in configs.names("protocols") if other.startswith("finetune")]
        raise ValueError(f"protocol {name} is a probe's, for lineval.py; those for fine-tuning: {', '.join(known)}")
    return configs.read(path, TuningProtocol)


def change_protocol(protocol: TuningProtocol, given: dict[str, Any], where: str) -> TuningProtocol:
    """Return the protocol with other hyper-parameters.

    Args:
        protocol: to change; it is not changed itself.
        given: name -> value; whole numbers become floats where these are wanted.
        where: for error messages.

    Raises:
        ValueError: if a name is unknown or a value not legal.
    """
    if not given:
        return protocol
    whole = {entry.name: getattr(protocol, entry.name) for entry in dataclasses.fields(protocol)}
    for name in given:
        if name in _NO_PARAMS:
            raise ValueError(f"{where} cannot set {name}")
    checked = configs.build({**whole, **given}, TuningProtocol, where)
    return replace(checked, encoders=protocol.encoders, tasks=protocol.tasks)
