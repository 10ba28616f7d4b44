"""The names an author of an encoder uses most, `self.head` and `self.layers`, are theirs."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from evar.encoders.base import Encoder
from evar.encoders.contract import check_encoder
from evar.encoders.features import LayerInfo

INFOS = (LayerInfo("first", 6, 10, "mean"), LayerInfo("second", 4, 10, "mean"))


class Usual(Encoder):
    """Modules by their most usual names; `layers` is declared in the class and holds modules in its instances."""

    sample_rate = 1000
    layers = INFOS
    default_layers = ("second",)
    min_samples = 10

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(10, 6), nn.Linear(6, 6)])
        self.head = nn.Linear(6, 4)

    def valid_frames(self, lengths: Tensor) -> Tensor:
        return lengths // 10

    def forward(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        first = waveform.unfold(1, 10, 10)  # (batch, time, feature)
        for layer in self.layers:
            first = torch.tanh(layer(first))
        return {"first": first, "second": self.head(first)}


class Declared(Usual):
    """The same, declared under the name of its own."""

    layer_infos = INFOS


class InInit(Usual):
    """Declared in an instance, by the old name, before the modules take the name over."""

    def __init__(self) -> None:
        super().__init__()
        modules = self.layers
        self.layers = list(INFOS)
        assert self.layers is modules


@pytest.mark.parametrize("encoder_class", [Usual, Declared, InInit])
def test_head_and_layers_belong_to_the_author(encoder_class: type[Usual]) -> None:
    encoder = encoder_class().eval()
    assert isinstance(encoder.layers, nn.ModuleList) and isinstance(encoder.head, nn.Linear)
    assert encoder.layer_infos == INFOS == encoder_class.layer_infos
    assert set(encoder.state_dict()) == {
        f"{name}.{kind}" for name in ("layers.0", "layers.1", "head") for kind in ("weight", "bias")
    }
    assert check_encoder(encoder) == []
    assert copy.deepcopy(encoder).layer_infos == INFOS
    with pytest.raises(ValueError, match="no classifier head"):
        encoder.outputs(torch.zeros(1, 100))


def test_declared_layers_are_still_readable_as_layers() -> None:
    class Plain(Usual):
        def __init__(self) -> None:
            Encoder.__init__(self)

    assert Plain.layers == INFOS and Plain().layers == INFOS


def test_the_former_name_of_classify_is_understood() -> None:
    class Former(Usual):
        def __init__(self) -> None:
            super().__init__()
            del self.head
            self.last = nn.Linear(6, 4)

        def head(self, waveform: Tensor, lengths: Tensor) -> Tensor:
            return waveform[:, :3]

    assert Former().outputs(torch.zeros(2, 100)).shape == (2, 3)


def test_a_property_that_declares_layers_is_understood() -> None:
    class Dynamic(Usual):
        @property
        def layers(self) -> tuple[LayerInfo, ...]:
            return INFOS[:1]

    assert Dynamic().layer_infos == INFOS[:1]


@pytest.mark.parametrize("name", ["frontend", "layer", "outputs", "convert", "network_input", "device"])
def test_names_of_every_encoder_are_refused_for_modules(name: str) -> None:
    class Taken(Usual):
        def __init__(self) -> None:
            super().__init__()
            setattr(self, name, nn.Linear(2, 2))

    with pytest.raises(AttributeError, match=rf"Taken\.{name} cannot be set.*self\.own_{name}"):
        Taken()
