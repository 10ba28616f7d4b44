"""What probes declare: memory, devices, joint fitting; and what follows from it."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from evar import cli, results
from evar.cli import run
from evar.config.protocol import load_protocol_config, probe_protocols
from evar.config.registry import resolve
from evar.experiment.selection import Selection
from evar.lineval.cells import group_rows
from evar.probes import network_training
from evar.probes.few_shot import FewShotProbe
from evar.probes.linear import LinearProbe
from evar.probes.making import find_probe_class, make_probe
from evar.probes.network import NetworkProbe
from evar.probes.network_training import group_networks
from evar.probes.protocol import check_probe, fit_probes, get_traits, report_fit


def list_classes():
    protocols = [load_protocol_config(name) for name in probe_protocols()]
    return sorted({name for one in protocols for name in (one.probe, *one.probes.values())})


@pytest.mark.parametrize("name", list_classes())
def test_every_probe_of_the_package_keeps_the_promises_that_its_traits_make(name):
    probe = resolve(name)
    assert hasattr(probe, "traits")
    assert get_traits(probe).takes_device == ("device" in probe().get_params())
    assert get_traits(probe).fits_together == hasattr(probe, "fit_together")
    assert check_probe(probe) == []


@pytest.mark.parametrize("protocol", ["evar", "mlp", "hear", "attentive"])
def test_the_device_reaches_probes_that_are_trained_by_gradient_steps(protocol):
    assert make_probe(load_protocol_config(protocol), "accuracy", 0, "cpu").device == "cpu"
    assert make_probe(load_protocol_config(protocol), "accuracy", 0).device == "auto"
    assert not hasattr(make_probe(load_protocol_config("linear"), "accuracy", 0, "cpu"), "device")


def test_a_protocol_says_for_which_kinds_it_has_probes():
    assert find_probe_class(load_protocol_config("linear"), "multilabel").__name__ == "MultilabelProbe"
    with pytest.raises(ValueError, match="only for multiclass, multilabel, regression; protocol events has one"):
        find_probe_class(load_protocol_config("linear"), "events")
    with pytest.raises(ValueError, match="only for events; protocol linear has one"):
        find_probe_class(load_protocol_config("events"), "multiclass")


def test_few_shot_says_what_a_fit_holds_so_that_seeds_are_fitted_side_by_side():
    count_bytes = get_traits(FewShotProbe).count_bytes
    assert count_bytes(FewShotProbe(n_per_class=5), 1000, 10, 8) == 10 * (4 * 1000 + 48 * 40)
    assert count_bytes(FewShotProbe(n_per_class=5), 20, 10, 8) == 10 * (4 * 20 + 48 * 20)  # never more than there are
    rng = np.random.default_rng(0)
    y = np.arange(60) % 3
    X = rng.normal(size=(60, 6)) + 2 * np.eye(6)[y]
    together = [FewShotProbe(random_state=seed) for seed in range(3)]
    fit_probes(together, [(X, y, None, None)] * 3)
    for seed, probe in enumerate(together):
        alone = FewShotProbe(random_state=seed).fit(X, y)
        assert np.allclose(probe.predict_proba(X), alone.predict_proba(X), atol=1e-5)


def test_networks_are_grouped_by_their_own_batch_size(monkeypatch):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(40, 8)).astype(np.float32), np.arange(40) % 2
    monkeypatch.setattr(network_training, "_STEP_BYTES", 4 * 8 * 1024 * 2)  # two networks of batches of 1,024 clips

    def count_groups(batch_size):
        probes = [NetworkProbe(batch_size=batch_size, max_epochs=1, random_state=seed) for seed in range(10)]
        networks = [
            one for at, probe in enumerate(probes) for one in probe._make_networks(at, X[:30], y[:30], X[30:], y[30:])
        ]
        return [len(group) for group in group_networks(networks, probes)]

    assert count_groups(1024) == [2] * 5 and count_groups(200) == [10]


def test_what_a_fit_tells_is_read_from_its_attributes():
    class Told:
        strength_, chosen_, ignored_ = 0.5, {"k": 3}, 1

    probe = LinearProbe((1.0,))
    assert report_fit(probe).strength is None and report_fit(probe).converged
    told = Told()
    told.strength_, told.chosen_ = 0.5, {"k": 3}
    assert (
        report_fit(told).strength == 0.5
        and report_fit(told).chosen == {"k": 3}
        and report_fit(told).valid_score is None
    )


def test_layers_and_seeds_of_few_shot_are_fitted_in_one_group():
    class SomeTask(list):
        config = SimpleNamespace(kind="multiclass", metric="accuracy", classes=["a", "b"])

        def rounds(self, seed):
            return [seed]

    cell = SimpleNamespace(protocol=load_protocol_config("fewshot"), task=SomeTask(range(100)), metric="accuracy")
    rows = [
        SimpleNamespace(selection=Selection((layer,), "none"), fusion="none", seed=seed, id=f"{layer}{seed}")
        for layer in "ab"
        for seed in range(10)
    ]
    vectors = SimpleNamespace(width=lambda selection: 512)
    assert [len(group) for group in group_rows(cell, vectors, rows)] == [20]


@pytest.mark.parametrize("device", ["cpu", "auto"])
def test_the_device_of_the_command_line_is_that_of_the_probe(tones, device):
    root = tones()
    words = ["--protocol=evar", "--seeds=1", f"--device={device}", f"--out={root / 'results'}"]
    assert run(["lineval", "toy", "tones", *words]) == cli.DONE
    (row,) = results.load_all(root / "results")
    assert row.params["device"] == device
