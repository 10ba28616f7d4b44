"""`random:NAME` is any encoder with random weights, under a name of its own; the baselines without a network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from evar import cli, config, results
from evar.cli import run
from evar.config import display_name, make_absolute
from evar.encoders import describe_encoder, load_encoder
from evar.encoders.mfcc import compute_slopes, make_cosine_transform
from evar.rerun import list_named_code

ROOT = next(folder for folder in Path(__file__).resolve().parents if (folder / "pyproject.toml").is_file())


def test_an_untrained_encoder_is_the_same_network_under_a_name_of_its_own() -> None:
    plain, named = load_encoder("crepe.tiny", "random"), load_encoder("random:crepe.tiny")
    assert (named.name, named.weights_label) == ("random:crepe.tiny", "random")
    assert named.weights_sha256 == plain.weights_sha256 and named.layer_infos == plain.layer_infos
    assert named.default_layers == plain.default_layers and named.trained_on == "nothing"
    assert named.store_name != "crepe.tiny"
    sound = torch.rand(1, 4000, generator=torch.Generator().manual_seed(0)) - 0.5
    assert all(torch.equal(named.encode(sound)[name], value) for name, value in plain.encode(sound).items())


def test_variants_and_options_stay() -> None:
    entry = config.load_encoder_config("random:cnn14.fusion_3_6")
    assert entry.base == "" and entry.weights is None and entry.description.endswith("untrained")
    assert entry.default_layers == config.load_encoder_config("cnn14.fusion_3_6").default_layers
    assert describe_encoder("random:ced.mini", n_blocks=1).layer("norm").width == 256
    assert describe_encoder(f"random:{ROOT}/examples/my_encoder.py:MyEncoder").name == "random:my_encoder:MyEncoder"


def test_weights_and_an_untrained_name_contradict_each_other() -> None:
    with pytest.raises(
        ValueError, match=r"random:crepe\.tiny has random weights, got x\.pth; load them as crepe\.tiny"
    ):
        load_encoder("random:crepe.tiny", "x.pth")
    with pytest.raises(ValueError, match=r"crepe\.tiny"):
        config.load_encoder_config("random:crepe.tony")


def test_names_of_files_become_absolute_and_short_behind_the_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert make_absolute("random:examples/my_encoder.py:MyEncoder") == f"random:{ROOT}/examples/my_encoder.py:MyEncoder"
    assert display_name("random:examples/my_encoder.py:MyEncoder") == "random:my_encoder:MyEncoder"


def test_a_row_of_an_untrained_encoder_is_marked_and_computed_again(tones, capsys) -> None:
    root = tones()
    out = root / "results"
    assert run(["lineval", "random:mfcc_cnn,mfcc", "tones", f"--out={out}"]) == cli.WRONG
    assert run(["lineval", "random:crepe.tiny,mfcc", "tones", f"--out={out}"]) == cli.DONE
    rows = {row.encoder: row for row in results.load_all(out)}
    assert rows["random:crepe.tiny"].is_random and not rows["mfcc"].is_random
    assert list_named_code(rows["random:crepe.tiny"]) == []
    shown = capsys.readouterr().out
    assert "random:crepe.tiny" in shown and "random weights" in shown


def test_mfcc_are_those_of_scipy_and_their_slopes_are_least_squares() -> None:
    scipy_fft = pytest.importorskip("scipy.fft")
    numbers = np.random.RandomState(0).randn(5, 64)
    ours = torch.from_numpy(numbers).float() @ make_cosine_transform(64, 20)
    np.testing.assert_allclose(ours, scipy_fft.dct(numbers, type=2, norm="ortho")[:, :20], atol=1e-5)
    line = torch.randn(2, 9, 3, generator=torch.Generator().manual_seed(0))
    found = compute_slopes(line, torch.tensor([9, 6]))
    by_hand = [np.polyfit(np.arange(-2, 3), line[0, 2:7, one].numpy(), 1)[0] for one in range(3)]
    np.testing.assert_allclose(found[0, 4], by_hand, atol=1e-6)
    alone = compute_slopes(line[1:, :6], torch.tensor([6]))
    assert torch.equal(found[1, :6], alone[0]), "what lies beyond a clip's end must not count"


def test_log_mel_shows_quiet_sounds_that_the_mel_spectrogram_hides() -> None:
    sound = torch.rand(1, 16000, generator=torch.Generator().manual_seed(0)) - 0.5
    quiet, loud = (load_encoder("melspec").encode(sound * gain)["melspec"] for gain in (0.5, 1.0))
    torch.testing.assert_close(2 * quiet, loud, rtol=1e-4, atol=1e-6)  # no logarithm: the bands follow the loudness
