"""The flags of lineval and finetune are described once; everything else follows from there."""

from __future__ import annotations

import dataclasses
import inspect

import pytest

import evar
from evar.cli import COMMANDS
from evar.config.flag_tables import FINETUNE_FLAGS, LINEVAL_FLAGS
from evar.config.flags import KINDS, read_flags, render_flags


@pytest.mark.parametrize(("command", "flags"), [("lineval", LINEVAL_FLAGS), ("finetune", FINETUNE_FLAGS)])
def test_signature_and_help_come_from_the_table(command: str, flags: tuple) -> None:
    parameters = list(inspect.signature(COMMANDS[command]).parameters.values())
    assert [p.name for p in parameters] == ["encoders", "tasks", *(flag.name for flag in flags)]
    text = inspect.getdoc(COMMANDS[command])
    for flag in flags:
        assert f"--{flag.name}" in text and flag.kind in KINDS
        assert isinstance(flag.typed_default, bool) == (flag.kind == "switch")
    assert max(map(len, render_flags(flags).splitlines())) <= 100
    for other in ("robust", "train"):  # they refuse several
        assert "--protocol=NAME " in inspect.getdoc(COMMANDS[other])


def test_every_field_of_the_settings_has_a_flag() -> None:
    from evar.experiment.settings import Settings
    from evar.finetune.protocol import TuningProtocol
    from evar.finetune.run import TuningSettings

    known = {flag.name for flag in LINEVAL_FLAGS}
    assert {entry.name for entry in dataclasses.fields(Settings)} - {"encoders", "tasks"} <= known
    hyper_parameters = {flag.name for flag in FINETUNE_FLAGS if flag.is_hyper_parameter}
    assert hyper_parameters <= {entry.name for entry in dataclasses.fields(TuningProtocol)}
    others = {flag.name for flag in FINETUNE_FLAGS} - hyper_parameters
    assert others - {"quiet", "report", "cost"} <= {entry.name for entry in dataclasses.fields(TuningSettings)}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"bogus": 1}, "evar.evaluate has no flag 'bogus'; it has layers, fusion"),
        ({"layer": "all"}, "did you mean 'layers'"),
        ({"limit": "many"}, "--limit must be a whole number, got 'many'"),
        ({"limit": 2.5}, "--limit must be a whole number, got 2.5"),
        ({"limit": True}, "--limit must be a whole number, got True"),
        ({"frames_gb": "much"}, "--frames_gb must be a number"),
        ({"skip_bad": "perhaps"}, "--skip_bad must be true or false"),
        ({"norm_stats": (1.0, 2.0, 3.0)}, "two numbers MEAN,STD"),
        ({"engine": ["local"]}, "--engine must be text"),
        ({"protocol": True}, "--protocol must be text"),
    ],
)
def test_python_is_told_what_is_wrong_before_any_work(given: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        evar.evaluate("logmel", "esc10", **given)


def test_python_values_and_typed_text_mean_the_same() -> None:
    python = {"limit": 20, "layers": ["a", "b"], "norm_stats": (-5.5, 5.0), "skip_bad": True, "learning_rate": 0.1}
    typed = {"limit": "20", "layers": "a,b", "norm_stats": "-5.5,5.0", "skip_bad": "true", "learning_rate": "0.1"}
    python["protocol"], typed["protocol"] = ["linear", "knn"], "linear,knn"  # several are legal
    assert read_flags(LINEVAL_FLAGS, python, "x") == read_flags(LINEVAL_FLAGS, typed, "x")
    nothing = read_flags(LINEVAL_FLAGS, {"limit": None, "layers": ""}, "x")
    assert nothing["limit"] is None and nothing["layers"] is None and nothing["out"] == "results"
