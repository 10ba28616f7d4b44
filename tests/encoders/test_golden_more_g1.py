"""Audio-MAE, M2D, SSAST, MAE-AST and MaskSpec give what the official implementations give; known mistakes do not."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import golden_more
import numpy as np
import pytest
import torch
from golden_compare import WAVES, Arrays, GoldenSet, make_waves, relative
from golden_more_g1 import MODELS, UNMAPPED
from torch import nn

from evar.encoders import _vit, load_encoder
from evar.encoders._logmel import MelSpectrogram
from evar.encoders._patches import PatchGrid
from evar.encoders.base import Encoder

G1 = GoldenSet("g1")
LAYOUTS = list(dict.fromkeys(layout for layout, _, _ in MODELS.values()))
SINGLE = ("frames2", "max_last", "cls", "contextual_frames2", "crop_frames2", "crop_max_last", "frames2_cat", "logits")


def limit(model: str, key: str) -> tuple[str, float]:
    """The tolerances that the set recommends (CPU, float32)."""
    if key.startswith(("front_first", "front_last")):
        return "largest", 1e-2
    if key == "half_emb":
        return "relative", 1e-3
    if key.startswith(SINGLE):
        return "relative", 1e-4
    return "relative", 5e-5 if model.startswith("maskspec") else 2e-5


@pytest.fixture(scope="module")
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A fake checkpoint in the official format, deleted when the tests of its layout are through (340 MB each)."""
    folder = tmp_path_factory.mktemp(request.param)
    place = folder if request.param in G1.fake_weights.FOLDER else folder / f"{request.param}.pth"
    yield request.param, G1.fake_weights.write_checkpoint(request.param, place, slim=True)
    shutil.rmtree(folder)


@pytest.mark.parametrize("checkpoint", LAYOUTS, indirect=True)
def test_every_array_of_every_wave(checkpoint: tuple[str, Path]) -> None:
    layout, path = checkpoint
    problems: list[str] = []
    for model in [name for name, (needed, _, _) in MODELS.items() if needed == layout]:
        for wave in WAVES:
            ours = golden_more.compute(model, make_waves(wave), lambda name: path)
            unmapped = {key for key in G1.names(model, wave) if f"{model}/{key}" in UNMAPPED}
            assert set(ours) == G1.names(model, wave) - unmapped, f"{model}: every array of the set must be computed"
            problems += G1.differences(model, wave, ours, limit)
    assert problems == []


Mistake = Callable[[Encoder, pytest.MonkeyPatch], None]


def other_window(kind: str) -> Mistake:
    """Another window of the same length."""

    def apply(encoder: Encoder, patch: pytest.MonkeyPatch) -> None:
        mel = next(module for module in encoder.modules() if isinstance(module, MelSpectrogram))
        window = torch.hann_window(mel.win_length, periodic=kind == "periodic", dtype=torch.float64)
        if mel._double:
            patch.setattr(mel, "_double", {torch.device("cpu"): (window, mel._double[torch.device("cpu")][1])})
        patch.setitem(mel._buffers, "window", window.float())

    apply.__name__ = f"{kind}_window"
    return apply


def zeros_beyond_the_ends(encoder: Encoder, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(encoder.mel, "center", "constant")


def tanh_gelu(encoder: Encoder, patch: pytest.MonkeyPatch) -> None:
    for module in encoder.modules():
        if isinstance(module, nn.GELU):
            patch.setattr(module, "approximate", "tanh")


def filled_after_normalising(encoder: Encoder, patch: pytest.MonkeyPatch) -> None:
    mean, std = encoder.norm_stats
    patch.setattr(encoder, "prepare", lambda values: (values - mean) / (2 * std))
    patch.setattr(encoder, "norm_stats", (0.0, 0.5))


def once_the_deviation(encoder: Encoder, patch: pytest.MonkeyPatch) -> None:
    mean, std = encoder.norm_stats
    patch.setattr(encoder, "norm_stats", (mean, std / 2))


def positions_laid_on_the_grid(encoder: Encoder, patch: pytest.MonkeyPatch) -> None:
    table = encoder.pos_embed
    grid = table[:, 1:].unflatten(1, (8, 64)).transpose(1, 2).flatten(1, 2)
    patch.setitem(encoder._buffers, "pos_embed", torch.cat([table[:, :1], grid], dim=1))


def four_blocks_averaged(encoder: Encoder, patch: pytest.MonkeyPatch) -> None:
    patch.setattr("evar.encoders.audio_mae.N_CONTEXTUAL", 4)


def smaller_log_offset(encoder: Encoder, patch: pytest.MonkeyPatch) -> None:
    patch.setattr("evar.encoders.m2d.LOG_OFFSET", 1e-10)


def table_cut_as_a_list(encoder: Encoder, patch: pytest.MonkeyPatch) -> None:
    patch.setattr("evar.encoders.m2d.first_columns", lambda table, rows, columns: table[:, : 1 + rows * columns])


def time_major_bands(encoder: Encoder, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(encoder, "grid", lambda tokens, order: PatchGrid(tokens, encoder.n_bands, "time", None))


def constant_statistics(encoder: Encoder, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(encoder, "norm_stats", (-7.1, 4.2))


def first_columns_of_the_table(encoder: Encoder, patch: pytest.MonkeyPatch) -> None:
    resized = _vit.resize_table

    def cropped_from_the_start(table, stored, rows, columns):
        grid = table[:, 2:].unflatten(1, stored)[:, :, :columns].flatten(1, 2)
        return resized(torch.cat([table[:, :2], grid], dim=1), (stored[0], columns), rows, columns)

    patch.setattr("evar.encoders.ssast.resize_table", cropped_from_the_start)


def smaller_floor(encoder: Encoder, patch: pytest.MonkeyPatch) -> None:
    patch.setattr("evar.encoders._filterbanks.KALDI_FLOOR", 1e-10)


def twice_the_input(encoder: Encoder, patch: pytest.MonkeyPatch) -> None:
    once_the_deviation(encoder, patch)


def sines_before_cosines(encoder: Encoder, patch: pytest.MonkeyPatch) -> None:
    def halves(n_positions: int, width: int) -> torch.Tensor:
        table = _vit.sinusoid_table(n_positions, width)
        return torch.cat([table[..., 0::2], table[..., 1::2]], dim=2)

    patch.setattr("evar.encoders.mae_ast.sinusoid_table", halves)


def no_norm_before_the_blocks(encoder: Encoder, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(encoder.norm, "forward", lambda tokens: tokens)


def half_waveform(encoder: Encoder, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(encoder, "half_waveform", True)


def no_band_statistics(encoder: Encoder, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(encoder, "_normalise", lambda values: values)


def up_to_16_kilohertz(encoder: Encoder, patch: pytest.MonkeyPatch) -> None:
    from evar.encoders._logmel import mel_filterbank

    filters = mel_filterbank(32000, 1024, 128, 0.0, 16000.0, "htk", "none", "mel")
    window = encoder.mel._double[torch.device("cpu")][0]
    patch.setattr(encoder.mel, "_double", {torch.device("cpu"): (window, torch.from_numpy(filters.T.copy()))})


#: layout -> encoder, its options, golden model, and what each mistake changes at least (as the set says)
MISTAKES: dict[str, tuple[str, dict[str, str], list[tuple[Mistake, float]]]] = {
    "audiomae": (
        "audio_mae",
        {"input": "padded"},
        [
            (other_window("periodic"), 6e-4),
            (filled_after_normalising, 0.7),
            (once_the_deviation, 0.4),
            (positions_laid_on_the_grid, 0.1),
            (four_blocks_averaged, 0.05),
            (tanh_gelu, 1e-4),
        ],
    ),
    "m2d": (
        "m2d",
        {},
        [
            (other_window("symmetric"), 1e-3),
            (zeros_beyond_the_ends, 1.7e-2),
            (smaller_log_offset, 5e-3),
            (table_cut_as_a_list, 0.1),
            (time_major_bands, 0.3),
        ],
    ),
    "m2d_enconly": ("m2d.as_ft", {}, [(constant_statistics, 0.07), (zeros_beyond_the_ends, 1e-3), (tanh_gelu, 1e-4)]),
    "ssast_patch": (
        "ssast.patch",
        {},
        [(first_columns_of_the_table, 0.1), (other_window("periodic"), 6e-4), (smaller_floor, 2e-2)],
    ),
    "ssast_frame": (
        "ssast.frame",
        {},
        [(first_columns_of_the_table, 0.04), (other_window("periodic"), 6e-4), (once_the_deviation, 0.1)],
    ),
    "mae_ast_patch": (
        "mae_ast.patch",
        {},
        [
            (other_window("symmetric"), 1.4e-2),
            (twice_the_input, 0.1),
            (sines_before_cosines, 0.3),
            (no_norm_before_the_blocks, 0.1),
        ],
    ),
    "maskspec": (
        "mask_spec",
        {"input": "padded"},
        [
            (half_waveform, 1e-2),
            (up_to_16_kilohertz, 5e-2),
            (other_window("periodic"), 3e-4),
            (no_band_statistics, 0.5),
        ],
    ),
}


@pytest.mark.parametrize("checkpoint", list(MISTAKES), indirect=True)
def test_known_mistakes_are_seen(checkpoint: tuple[str, Path]) -> None:
    layout, path = checkpoint
    name, options, mistakes = MISTAKES[layout]
    encoder = load_encoder(name, path, **options)
    samples = make_waves("A")[encoder.sample_rate]
    right = embedding(encoder, layout, samples)
    assert G1.differences(layout, "A", right, limit) == []
    for mistake, least in mistakes:
        with pytest.MonkeyPatch.context() as patch:
            mistake(encoder, patch)
            wrong = embedding(encoder, layout, samples)
        assert G1.differences(layout, "A", wrong, limit) != [], f"{mistake.__name__} of {layout} was not seen"
        error = relative(wrong["emb"], right["emb"])
        assert error > least, f"{mistake.__name__} of {layout} changes emb by {error:.1e} only"
    assert G1.differences(layout, "A", embedding(encoder, layout, samples), limit) == [], "a mistake was not undone"


def embedding(encoder: Encoder, layout: str, samples: np.ndarray) -> Arrays:
    from evar import embed

    with torch.inference_mode():
        vector = embed(encoder, torch.from_numpy(samples)[None])[0]
    return {"emb": vector.reshape(encoder.n_bands, -1).mean(0) if layout.startswith("mae_ast") else vector}


def test_every_family_has_three_mistakes() -> None:
    assert all(len(mistakes) >= 3 for _, _, mistakes in MISTAKES.values())


@pytest.mark.skipif(not G1.full.is_file(), reason="the full golden set is not at hand")
def test_kept_files_are_those_of_the_set() -> None:
    G1.check_kept_files()


def test_an_unknown_model_is_refused() -> None:
    with pytest.raises(ValueError, match="no golden model 'beets'; known are .*audiomae"):
        golden_more.compute("beets", {}, lambda layout: Path(layout))
