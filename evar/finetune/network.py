"""The fine-tuned network: an encoder, chosen layers pooled over time, a normalisation without parameters, a linear head."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from evar.config.registry import near_miss
from evar.encoders._logmel import MelSpectrogram
from evar.encoders.base import Encoder
from evar.encoders.pooling import count_pooled_features, pool


class Network(nn.Module):
    """Encoder, pooling and head.

    Args:
        encoder: as `load_encoder` gives it.
        layers: "default" (concatenated), "weighted" (softmax sum of all layers), or names or positions joined by "+".
        n_outputs: classes, labels, or 1.
        frozen_norms: whether the encoder's batch normalisations keep their statistics in training.
        train_frontend: make the mel filters of the encoder's front-end parameters.

    Raises:
        ValueError: if there is no such layer, layers to be summed are not equally wide, or there are no mel filters.

    Source: the head of EVAR's fine-tuning: BatchNorm1d without parameters, then a linear layer of weights N(0, 0.01).
    """

    def __init__(
        self, encoder: Encoder, layers: str, n_outputs: int, frozen_norms: bool = False, train_frontend: bool = False
    ) -> None:
        super().__init__()
        if train_frontend:
            if not mel_filters(encoder):
                raise ValueError(f"{encoder.name} has no mel filters that could be trained")
            for module in mel_filters(encoder):
                module.make_trainable()
        self.encoder, self.frozen_norms = encoder, frozen_norms
        names = list_head_layers(encoder, layers)
        self.infos = [encoder.layer(name) for name in names]
        widths = [count_pooled_features(info.width, info.pooling) for info in self.infos]
        self.mixing = nn.Parameter(torch.zeros(len(names))) if layers == "weighted" else None
        self.width = widths[0] if layers == "weighted" else sum(widths)
        self.norm = SharedNorm(self.width)
        self.head = nn.Linear(self.width, n_outputs)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)

    @property
    def layer_names(self) -> tuple[str, ...]:
        """Layers that the head sees, shallow to deep or in the order given."""
        return tuple(info.name for info in self.infos)

    def forward(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Map (batch, samples) and (batch,) valid samples to (batch, outputs)."""
        features = self.encoder.encode(waveform, lengths)
        pooled = [pool(features[info.name], features.frames[info.name], info.pooling) for info in self.infos]
        if self.mixing is None:
            embedding = torch.cat(pooled, dim=1)
        else:
            embedding = (torch.softmax(self.mixing, 0)[:, None, None] * torch.stack(pooled)).sum(dim=0)
        return self.head(self.norm(embedding))

    def train(self, mode: bool = True) -> Network:
        """Switch the mode as `nn.Module` does, but leave batch normalisations alone that must keep their statistics."""
        super().train(mode)
        if mode and self.frozen_norms:
            for module in self.encoder.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    def groups(self, rate: float, head_rate: float, layer_decay: float, freeze: str) -> list[dict[str, object]]:
        """Parameters for an optimiser, each group with its highest learning rate.

        The encoder's blocks, in the order in which they hold their parameters, have rates that fall by `layer_decay` from
        the deepest to the first. A block is named by a parameter's path up to its first number ("blocks.3").

        Raises:
            ValueError: if `freeze` names no parameter.
        """
        head = [*self.head.parameters(), *([] if self.mixing is None else [self.mixing])]
        found: list[dict[str, object]] = [{"params": head, "lr": head_rate, "peak": head_rate, "is_head": True}]
        blocks: dict[str, list[nn.Parameter]] = {}
        frozen = list_frozen(self.encoder, freeze)
        for name, parameter in self.encoder.named_parameters():
            if any(_is_below(name, word) for word in frozen):
                continue
            if parameter.requires_grad and freeze != "encoder":
                blocks.setdefault(_name_block(name), []).append(parameter)
        for depth, parameters in enumerate(reversed(blocks.values())):
            peak = rate * layer_decay**depth
            found.append({"params": parameters, "lr": peak, "peak": peak, "is_head": False})
        return found


def list_frozen(encoder: Encoder, freeze: str) -> tuple[str, ...]:
    """Return the first words of the names of the parameters that stay as they are.

    Args:
        encoder: whose parameters.
        freeze: "none", "frontend", "encoder" (all, and none is named), or first words joined by "+".

    Raises:
        ValueError: if a word names no parameter; the nearest is proposed.
    """
    if freeze == "frontend":
        filters = [name for name, _ in encoder.named_parameters() if name.endswith(".filterbank")]
        frozen = (*encoder.frontend_parameters, *filters)
    elif freeze in ("none", "encoder"):
        return ()
    else:
        frozen = tuple(word.strip() for word in freeze.split("+"))
    names = [name for name, _ in encoder.named_parameters()]
    for word in frozen:
        if not any(_is_below(name, word) for name in names):
            known = list(dict.fromkeys(_name_block(name) for name in names))
            raise ValueError(f"--freeze: no parameter of {encoder.name} begins with {word!r}; {near_miss(word, known)}")
    return frozen


def list_head_layers(encoder: Encoder, layers: str) -> tuple[str, ...]:
    """Return the names of the layers that the head sees.

    Args:
        encoder: whose layers; only their declarations are read.
        layers: as for `Network`.

    Raises:
        ValueError: if there is no such layer, or layers to be summed are not equally wide.

    Example:
        >>> from evar.encoders import describe_encoder
        >>> list_head_layers(describe_encoder("crepe.tiny"), "conv2+conv5")
        ('conv2', 'conv5')
    """
    if layers == "default":
        return tuple(encoder.default_layers)
    if layers != "weighted":
        return encoder.layer_names(layers.split("+"))
    widths = {info.name: count_pooled_features(info.width, info.pooling) for info in encoder.layer_infos}
    if len(set(widths.values())) > 1:
        raise ValueError(f"layers to be summed must be equally wide, got {widths}")
    return tuple(widths)


class SharedNorm(nn.BatchNorm1d):
    """Batch normalisation without parameters over the clips of all processes; a single clip, which has no variance, is
    normalised by the running statistics."""

    def __init__(self, width: int) -> None:
        super().__init__(width, affine=False)

    def forward(self, embedding: Tensor) -> Tensor:
        """Map (batch, width) to the same shape."""
        is_shared = torch.distributed.is_available() and torch.distributed.is_initialized()
        if not self.training or not is_shared:
            if self.training and len(embedding) == 1:
                return nn.functional.batch_norm(embedding, self.running_mean, self.running_var, eps=self.eps)
            return super().forward(embedding)
        from torch.distributed.nn.functional import all_reduce

        ones = embedding.new_ones(len(embedding), 1)
        sums = torch.cat([ones.sum(dim=0), embedding.sum(dim=0), embedding.square().sum(dim=0)])
        n, total, squares = all_reduce(sums).split([1, embedding.shape[1], embedding.shape[1]])
        mean = total / n
        variance = (squares / n - mean.square()).clamp(min=0)
        with torch.no_grad():
            assert self.running_mean is not None and self.running_var is not None and self.momentum is not None
            if self.num_batches_tracked is not None:
                self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * n / (n - 1).clamp(min=1), self.momentum)
        return (embedding - mean) * torch.rsqrt(variance + self.eps)


def mel_filters(encoder: Encoder) -> list[MelSpectrogram]:
    """Find the mel front-ends of an encoder; usually one or none."""
    return [module for module in encoder.modules() if isinstance(module, MelSpectrogram)]


def _is_below(name: str, word: str) -> bool:
    """Is a parameter's name that word, or does it begin with it and a dot?"""
    return name == word or name.startswith(f"{word}.")


def _name_block(name: str) -> str:
    parts = name.split(".")
    for at, part in enumerate(parts):
        if part.isdigit():
            return ".".join(parts[: at + 1])
    return parts[0]


class Lars(torch.optim.Optimizer):
    """SGD with momentum whose step is scaled, tensor by tensor, to the size of the weights.

    Vectors (biases, scales) are stepped without scaling or decay.

    Args:
        params: parameters or groups.
        lr: learning rate.
        momentum: share of the last step that is kept.
        weight_decay: added to the gradient.
        trust: size of a step as a share of the weights'.

    Source: You, Gitman & Ginsburg, "Large Batch Training of Convolutional Networks" (2017), arXiv:1708.03888.
    """

    def __init__(
        self, params: Sequence[dict[str, object]], lr: float = 1.0, momentum: float = 0.9, weight_decay: float = 0.0,
        trust: float = 0.001,
    ) -> None:  # fmt: skip
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "trust": trust})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Take one step."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                change = parameter.grad
                if parameter.dim() > 1:
                    change = change + group["weight_decay"] * parameter
                    size, of_change = parameter.norm(), change.norm()
                    scale = torch.where((size > 0) & (of_change > 0), group["trust"] * size / of_change, 1.0)
                    change = change * scale
                state = self.state[parameter]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(parameter)
                state["momentum"].mul_(group["momentum"]).add_(change)
                parameter.sub_(group["lr"] * state["momentum"])


@contextmanager
def replace_input(encoder: Encoder, network_input: object | None, patch_out: object | None) -> Iterator[None]:
    """Replace the front-end, and hide patches, inside a `with` block; None replaces nothing."""
    given = {"network_input": network_input, "patch_out": patch_out}
    own = {name: value for name, value in given.items() if value is not None}
    encoder.__dict__.update(own)
    try:
        yield
    finally:
        for name in own:
            del encoder.__dict__[name]
