"""`evar plot`: the numbers of every picture on planted cases, what stands in the figures, and the command line."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from scipy.spatial.distance import cosine
from threadpoolctl import threadpool_limits
from torch import Tensor
from toy import RATE, Bands, tone

from evar import cli, embed, load_encoder
from evar.audio.reading import AudioError
from evar.cli import run
from evar.data.task import load_task
from evar.encoders.base import Encoder
from evar.encoders.features import LayerInfo
from evar.experiment.selection import list_selections
from evar.figures.style import COLOURS, make_figure, save_figure
from evar.pictures import PICTURES, alterations, plane
from evar.pictures.classes import POINT_COLOURS, pick_class_style
from evar.pictures.clip import (
    FLOOR_DB,
    compute_envelope,
    compute_spectrogram,
    draw_clip,
    find_colour_range,
    make_clip_data,
)
from evar.pictures.loading import Chosen, Sound, choose_encoders, parse_layers, read_sound
from evar.pictures.map import MapData, Panel, arrange_panels, draw_map, make_map_data
from evar.pictures.sensitivity import (
    PANELS,
    Layer,
    SensitivityData,
    compute_cosine_distances,
    draw_sensitivity,
    make_sensitivity_data,
)
from evar.storage.feature_store import FeatureStore

MINUS = "\N{MINUS SIGN}"


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """t-SNE of a few points takes longer with more: they only wait for one another."""
    with threadpool_limits(1):
        yield


def sine(frequency: float, rate: int = 16000, seconds: float = 1.0, level: float = 0.3) -> np.ndarray:
    """(samples,) float32."""
    time = np.arange(round(seconds * rate)) / rate
    return (level * np.sin(2 * np.pi * frequency * time)).astype(np.float32)


def peak_hz(waveform: np.ndarray, rate: int) -> float:
    n = 8 * len(waveform)
    return float(np.argmax(np.abs(np.fft.rfft(waveform * np.hanning(len(waveform)), n))) * rate / n)


def level_db(waveform: np.ndarray) -> float:
    inner = waveform[len(waveform) // 4 : -len(waveform) // 4].astype(np.float64)
    return float(10 * np.log10(np.mean(inner**2)))


def texts(figure) -> list[str]:
    """All that can be read: titles, labels, legends, tick labels, caption."""
    from matplotlib.text import Text

    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


# --- alterations ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
@pytest.mark.parametrize("semitones", [-12, -7, 1, 5, 12])
def test_pitch_is_shifted_and_the_length_and_level_kept(rate, semitones):
    clip = sine(440, rate)
    shifted = alterations.shift_pitch(clip, rate, semitones)
    assert shifted.dtype == np.float32 and shifted.shape == clip.shape
    assert 1200 * abs(np.log2(peak_hz(shifted, rate) / (440 * 2 ** (semitones / 12)))) < 3  # cents
    assert level_db(shifted) == pytest.approx(level_db(clip), abs=0.1)
    assert alterations.shift_pitch(clip, rate, 0).tobytes() == clip.tobytes()


def test_a_tone_an_octave_up_peaks_at_880_hz():
    assert peak_hz(alterations.shift_pitch(sine(440), 16000, 12), 16000) == pytest.approx(880, abs=0.5)


@pytest.mark.parametrize("semitones", [-5, 4])
def test_pitch_shift_agrees_with_librosa(semitones):
    librosa = pytest.importorskip("librosa")
    clip = sum(sine(220 * k, 22050, 1.5, 0.3 / k) for k in (1, 2, 3, 5))
    ours, theirs = (
        np.abs(np.fft.rfft(np.hanning(len(clip)) * shifted))
        for shifted in (
            alterations.shift_pitch(clip, 22050, semitones),
            librosa.effects.pitch_shift(clip, sr=22050, n_steps=semitones),
        )
    )
    assert np.corrcoef(ours, theirs)[0, 1] > 0.99
    unshifted = np.abs(np.fft.rfft(np.hanning(len(clip)) * clip))
    assert np.corrcoef(unshifted, theirs)[0, 1] < 0.1  # or the comparison would say nothing


def test_an_impulse_stays_where_it_is():
    clip = np.zeros(16000, np.float32)
    clip[6000] = 0.9
    for semitones in (-4, 4):
        shifted = alterations.shift_pitch(clip, 16000, semitones)
        centre = np.average(np.arange(16000), weights=np.square(shifted, dtype=np.float64))
        assert centre == pytest.approx(6000, abs=160)  # 10 ms


@pytest.mark.parametrize("n_samples", [80, 81, 700])
def test_short_clips_are_shifted_too(n_samples):
    clip = tone(0, 1)[:n_samples]
    for semitones in (-12, 7):
        shifted = alterations.shift_pitch(clip, RATE, semitones)
        assert len(shifted) == n_samples and np.isfinite(shifted).all()


def test_time_stretch_changes_the_duration_alone():
    clip = sine(440, 16000)
    for factor in (0.5, 1.7):
        stretched = alterations.stretch_time(clip, factor, 1024)
        assert len(stretched) == round(16000 * factor)
        assert peak_hz(stretched, 16000) == pytest.approx(440, abs=1)


def test_noise_has_the_ratio_that_it_says():
    clip = tone(1, 3)
    for snr in (40.0, 10.0, 0.0):
        noise = (alterations.add_noise(clip, snr, 0) - clip).astype(np.float64)
        assert 10 * np.log10(np.mean(np.square(clip, dtype=np.float64)) / np.mean(noise**2)) == pytest.approx(
            snr, abs=0.01
        )
    first, again, other = (alterations.add_noise(clip, 10.0, seed) for seed in (0, 0, 1))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    louder = alterations.add_noise(clip, -10.0, 0)
    assert np.allclose(louder - clip, 10 * (first - clip), atol=1e-4)  # one noise for all ratios


def test_nothing_clips_and_every_version_has_the_same_length():
    clip = sine(500, RATE, 0.5, 0.99)
    altered = alterations.alter_clip(clip, RATE)
    kinds = {kind.name: kind.clips for kind in altered.alterations}
    assert list(kinds) == ["pitch", "pitch_and_back", "level", "noise", "time"]
    for clips in kinds.values():
        for version in clips.values():
            assert version.shape == clip.shape and version.dtype == np.float32 and np.abs(version).max() <= 1 + 1e-6
    assert altered.lowered_db > 5  # noise as loud as a sine of full scale
    assert np.allclose(altered.unaltered, clip * 10 ** (-altered.lowered_db / 20), atol=1e-6)
    assert -30 in kinds["level"] and max(kinds["level"]) == 3 * int(-20 * np.log10(np.abs(altered.unaltered).max()) / 3)
    for name, value in (("pitch", 0), ("pitch_and_back", 0), ("level", 0), ("time", 0)):
        assert np.array_equal(kinds[name][value], altered.unaltered)
    assert np.allclose(kinds["level"][-30], altered.unaltered * 10**-1.5, atol=1e-7)
    times = list(kinds["time"])
    assert times[:2] == [0, 1] and times[-1] == 250 and times == sorted(times)  # ms: half of half a second
    assert np.array_equal(kinds["time"][250], np.roll(altered.unaltered, 2000))


def test_a_quiet_clip_is_left_as_it_is():
    clip = sine(500, RATE, 0.5, 0.05)
    altered = alterations.alter_clip(clip, RATE)
    assert altered.lowered_db == 0 and np.array_equal(altered.unaltered, clip)
    assert tuple(altered.alterations[2].clips) == alterations.LEVELS_DB


def test_a_silent_clip_is_refused():
    with pytest.raises(ValueError, match="the clip is silent"):
        alterations.alter_clip(np.zeros(800, np.float32), RATE)


# --- sensitivity ---------------------------------------------------------------------------------------------------------


class Planted(Encoder):
    """Layers of which it is known what moves them."""

    sample_rate = RATE
    layers = (
        LayerInfo("loudness", 2, 0, "mean"),  # level only
        LayerInfo("spectrum", 64, 0, "mean"),  # pitch and noise, in no way level or start
        LayerInfo("onsets", 10, 0, "mean"),  # start, not level
    )
    default_layers = ("loudness", "spectrum")
    default_norm_stats = "train"

    def __init__(self) -> None:
        super().__init__()
        self.name, self.weights_label, self.norm_stats = "planted", "a test", (-3.0, 2.5)

    def valid_frames(self, lengths: Tensor) -> Tensor:
        return torch.ones_like(lengths)

    def forward(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        power = torch.fft.rfft(waveform).abs().square()[:, 1:1985].unflatten(1, (64, 31)).sum(2)
        energy = waveform.square().sum(1, keepdim=True).sqrt()
        parts = waveform.unflatten(1, (10, -1)).square().sum(2)
        return {
            "loudness": torch.cat([energy, torch.full_like(energy, 5.0)], 1)[:, None],
            "spectrum": power[:, None],
            "onsets": parts[:, None],
        }


def planted(layers: str = "all") -> Chosen:
    encoder = Planted().eval()
    return Chosen(encoder, tuple(list_selections(encoder, layers, "none")), "constants")


@pytest.fixture(scope="module")
def moved() -> SensitivityData:
    random = np.random.default_rng(0)
    clip = sine(500, RATE, 0.5, 0.1) * np.repeat([1, 0.05], 2000).astype(np.float32)
    clip += (1e-4 * random.standard_normal(4000)).astype(np.float32)
    return make_sensitivity_data(Sound("planted.wav", clip, RATE, 0.5), [planted()])


def test_each_layer_moves_with_what_it_hears(moved):
    layers = {layer.name: layer.distances for layer in moved.layers["planted"]}
    assert list(layers) == ["loudness", "spectrum", "onsets", "loudness+spectrum"]
    assert layers["loudness"]["level"][0] > 0.05 and layers["loudness"]["time"].max() < 1e-6
    assert layers["spectrum"]["level"].max() < 1e-6 and layers["spectrum"]["time"].max() < 1e-4
    assert layers["onsets"]["level"].max() < 1e-6 and layers["onsets"]["time"][-1] > 0.9
    pitch = dict(zip(moved.values["pitch"], layers["spectrum"]["pitch"], strict=True))
    assert pitch[0] == 0 and pitch[12] > 0.9 and pitch[-12] > 0.9
    assert layers["spectrum"]["pitch_and_back"].max() < 0.1 * pitch[12]
    noise = layers["onsets"]["noise"]
    assert (np.diff(noise) > 0).all() and moved.values["noise"][0] == 40 and noise[0] < 1e-3 < noise[-1]


def test_unaltered_values_are_at_no_distance(moved):
    for layer in moved.layers["planted"]:
        for name in ("pitch", "pitch_and_back", "level", "time"):
            values = list(moved.values[name])
            assert layer.distances[name].shape == (len(values),)
            assert layer.distances[name][values.index(0)] == 0


def test_sensitivity_table_holds_every_number(moved, tmp_path):
    table = moved.table()
    assert len(table) == 4 * sum(map(len, moved.values.values()))
    row = table.query("layer == 'spectrum' and alteration == 'pitch' and value == 12").iloc[0]
    assert row["cosine_distance"] == moved.layers["planted"][1].distances["pitch"][-1]
    assert row["unit"] == "shift (semitones)" and row["depth"] == 0.5


def test_cosine_distances_agree_with_scipy():
    random = np.random.default_rng(1)
    vectors, reference = random.normal(size=(20, 7)), random.normal(size=7)
    assert np.allclose(compute_cosine_distances(vectors, reference), [cosine(vector, reference) for vector in vectors])
    assert compute_cosine_distances(3 * reference[None], reference)[0] == pytest.approx(0, abs=1e-15)
    assert np.isnan(compute_cosine_distances(np.zeros((1, 7)), reference)).all()
    assert compute_cosine_distances(np.zeros((1, 7)), np.zeros(7)).tolist() == [0]


def test_sensitivity_figure_says_what_it_shows(moved):
    figure = draw_sensitivity(moved)
    said = texts(figure)
    for name in ("planted.wav (0.5 s, 8000 Hz)", "pitch shift", "level", "white noise", "time shift, circular"):
        assert name in said
    for unit in ("shift (semitones)", "change of level (dB)", "signal-to-noise ratio (dB)", "shift (ms)"):
        assert unit in said
    assert "planted\ncosine distance" in said
    legend = next(ax.get_legend() for ax in figure.axes if ax.get_legend())
    assert [text.get_text() for text in legend.get_texts()] == ["loudness+spectrum", "onsets", "spectrum", "loudness"]
    caption = " ".join(" ".join(said).split())
    assert (
        f"planted normalises its log-mel by mean {MINUS}3 and standard deviation 2.5 (constants of its own" in caption
    )
    assert "was lowered" not in caption and "left out" not in caption
    widths = [line.get_linewidth() for line in figure.axes[0].lines]
    assert widths[3] > widths[0]  # the default layers are thick
    assert figure.axes[0].get_ylim() == figure.axes[3].get_ylim()


def many_layers(n: int) -> SensitivityData:
    values = dict.fromkeys((*PANELS, "pitch_and_back"), (0.0, 1.0, 2.0))
    layers = tuple(
        Layer(f"block{i}", i / (n - 1), i == n - 2, {name: np.array([0.0, 0.1, 0.2]) * i for name in values})
        for i in range(n)
    )
    names = dict.fromkeys(values, "x")
    return SensitivityData("many.wav", 3.0, values, names, names, {"deep (random weights)": layers})


def test_many_layers_have_a_colour_bar_and_a_lowered_clip_is_said():
    figure = draw_sensitivity(many_layers(14))
    assert all(ax.get_legend() is None for ax in figure.axes)
    assert [text.get_text() for text in figure.axes[4].get_yticklabels()] == ["block12", "block0"]
    said = " ".join(" ".join(texts(figure)).split())
    assert "lowered by 3.0 dB" in said and "Levels that would clip are left out" in said
    assert "deep (random weights) cosine distance" in said


# --- clip ----------------------------------------------------------------------------------------------------------------


def test_spectrogram_shows_tones_at_their_pitch_and_level():
    two = sine(1000, 16000, 2.0, 0.5) + sine(4000, 16000, 2.0, 0.05)  # 20 dB apart
    decibels, centres = compute_spectrogram(two, 16000)
    middle = decibels[:, decibels.shape[1] // 2]
    assert decibels.max() == 0 and decibels.min() >= FLOOR_DB and decibels.shape[1] == 401  # a frame every 5 ms
    assert centres[np.argmax(middle)] == pytest.approx(1000, rel=0.05)
    high = np.where(centres > 2000, middle, -np.inf)
    assert centres[np.argmax(high)] == pytest.approx(4000, rel=0.05) and high.max() == pytest.approx(-20, abs=3)
    assert (compute_spectrogram(np.zeros(4000, np.float32), 8000)[0] == FLOOR_DB).all()
    assert compute_spectrogram(np.ones(80, np.float32), 8000)[0].shape[0] == len(centres)
    assert compute_spectrogram(tone(0, 1, 60.0), 8000)[0].shape[1] <= 1501


def test_envelope_keeps_every_peak():
    random = np.random.default_rng(2)
    clip = random.normal(size=10_007).astype(np.float32)
    low, high = compute_envelope(clip, 100)
    assert len(low) == len(high) == 100 and low.min() == clip.min() and high.max() == clip.max()
    assert [len(part) for part in compute_envelope(clip[:7], 100)] == [7, 7]


def test_colour_ranges():
    assert find_colour_range(np.linspace(0, 10, 101, dtype=np.float32)) == (0.0, pytest.approx(9.9), "viridis")
    low, high, colours = find_colour_range(np.linspace(-1, 10, 101, dtype=np.float32))
    assert low == -high and colours == "PuOr_r"
    for constant in (np.zeros(5, np.float32), np.array([0, 0, 0, 0, -1] + [0] * 500, np.float32)):
        low, high, _ = find_colour_range(constant)
        assert low < high


@pytest.fixture
def one_clip(tones):
    """Path of one of the toy task's clips."""
    tones()
    return Path(load_task("tones").paths[0])


def test_clip_vectors_are_those_of_embed(one_clip):
    chosen = choose_encoders(["toy", "toy_normalised"], "all")
    data = make_clip_data(read_sound(one_clip, 30.0), chosen)
    assert [(vector.encoder, vector.layer) for vector in data.vectors] == [
        (name + " (random weights)", layer) for name in ("toy", "toy_normalised") for layer in ("level", "bands")
    ]
    for vector in data.vectors:
        expected = embed(load_encoder(vector.encoder.split()[0]), one_clip, layers="all")[vector.layer][0]
        assert np.array_equal(vector.values, expected)
    assert len(data.notes) == 1 and data.notes[0].startswith(f"toy_normalised normalises its log-mel by mean {MINUS}3")
    table = data.table()
    assert len(table) == 34 and table["value"].iloc[-1] == data.vectors[-1].values[-1]


def test_concatenated_default_layers_are_one_vector(one_clip):
    data = make_clip_data(read_sound(one_clip, 30.0), [planted("default")])
    assert [(vector.layer, len(vector.values)) for vector in data.vectors] == [("loudness+spectrum", 66)]


def test_clip_figure_says_what_it_shows(one_clip, tmp_path):
    data = make_clip_data(read_sound(one_clip, 0.25), choose_encoders(["toy"], "all"))
    figure = draw_clip(data)
    said = texts(figure)
    assert f"{one_clip.name} (first 0.25 of 0.5 s, 8000 Hz)" in said
    assert {"amplitude", "frequency (Hz)", "time (s)", "feature", "1000"} <= set(said)
    assert any(re.match(r"toy \(random weights\), bands: 16 features, \S+\d to \S+\d", text) for text in said)
    assert any("dB, loudest 0" in text for text in said)
    paths = save_figure(figure, tmp_path / "a.b")
    assert [path.name for path in paths] == ["a.b.png", "a.b.svg"] and all(path.stat().st_size > 5000 for path in paths)
    before = paths[1].read_bytes()
    assert save_figure(draw_clip(data), tmp_path / "a.b")[1].read_bytes() == before  # nothing of the moment is in it


def test_a_part_of_a_file_is_read(one_clip):
    sound = read_sound(one_clip, 0.1)
    assert len(sound.waveform) == 800 and sound.file_seconds == 0.5
    whole = read_sound(one_clip, 30.0)
    assert whole.title == f"{one_clip.name} (0.5 s, 8000 Hz)"
    assert np.array_equal(whole.waveform, soundfile.read(one_clip, dtype="float32")[0])
    with pytest.raises(ValueError, match="--seconds must be above 0"):
        read_sound(one_clip, 0)
    with pytest.raises(AudioError, match="none.wav: the file is missing"):
        read_sound(one_clip.with_name("none.wav"), 1)


# --- map -----------------------------------------------------------------------------------------------------------------


def test_purity_agrees_with_a_naive_loop():
    random = np.random.default_rng(3)
    vectors, y = random.normal(size=(60, 5)), random.integers(0, 4, 60)
    for k in (1, 3, 10):
        shares = []
        for clip in range(60):
            others = sorted((np.linalg.norm(vectors[clip] - vectors[i]), i) for i in range(60) if i != clip)
            shares.append(np.mean([y[i] == y[clip] for _, i in others[:k]]))
        assert plane.compute_purity(vectors, y, k) == pytest.approx(np.mean(shares))
    assert plane.compute_purity(y[:, None] * 10.0 + 0.1 * vectors, y, 3) == 1.0


def test_silhouette_agrees_with_its_formula():
    random = np.random.default_rng(4)
    vectors, y = random.normal(size=(30, 3)), np.repeat([0, 1, 2], 10)
    vectors[y == 1] += 2
    distances = np.linalg.norm(vectors[:, None] - vectors[None], axis=2)
    scores = []
    for clip in range(30):
        own = distances[clip, y == y[clip]].sum() / 9
        next_best = min(distances[clip, y == label].mean() for label in range(3) if label != y[clip])
        scores.append((next_best - own) / max(own, next_best))
    assert plane.compute_silhouette(vectors, y) == pytest.approx(np.mean(scores))
    assert np.isnan(plane.compute_silhouette(vectors, np.zeros(30, int))) and np.isnan(
        plane.compute_silhouette(vectors, np.arange(30))
    )


def test_chance_purity_is_what_shuffled_labels_give():
    random = np.random.default_rng(5)
    vectors, y = random.normal(size=(90, 4)), np.repeat([0, 1, 2], [50, 30, 10])
    shuffled = [plane.compute_purity(vectors, random.permutation(y), 5) for _ in range(200)]
    assert plane.compute_chance_purity(y) == pytest.approx(np.mean(shuffled), abs=0.01)


def test_standardised_features():
    random = np.random.default_rng(6)
    vectors = random.normal(3, 5, size=(40, 4)).astype(np.float32)
    vectors[:, 2] = 1e4  # never changes
    found = plane.standardise(vectors)
    assert np.allclose(found.mean(0), 0) and np.allclose(found.std(0), [1, 1, 0, 1])


def test_a_subset_is_balanced_seeded_and_whole_where_it_can_be():
    y = np.repeat([0, 1, 2], [100, 50, 4])
    drawn = plane.draw_balanced_subset(y, 40, 0)
    assert np.bincount(y[drawn]).tolist() == [18, 18, 4] and (np.diff(drawn) > 0).all()
    assert np.array_equal(drawn, plane.draw_balanced_subset(y, 40, 0))
    assert not np.array_equal(drawn, plane.draw_balanced_subset(y, 40, 1))
    assert np.array_equal(plane.draw_balanced_subset(y, 154, 0), np.arange(154))


@pytest.mark.parametrize("method", plane.METHODS)
def test_layouts_keep_planted_clusters_apart(method):
    if method == "umap":
        pytest.importorskip("umap")
    random = np.random.default_rng(7)
    y = np.repeat([0, 1, 2], 20)
    vectors = plane.standardise(random.normal(size=(60, 80)) + 4 * random.normal(size=(3, 80))[y])
    points = plane.place_clips(vectors, method, seed=0)
    assert points.shape == (60, 2) and plane.compute_purity(points, y, 5) == 1.0
    assert np.array_equal(points, plane.place_clips(vectors, method, seed=0))
    shuffled = plane.place_clips(random.permutation(vectors), method, seed=0)
    assert plane.compute_purity(shuffled, y, 5) < 0.6  # labels have no say


def test_few_clips_and_one_feature_have_a_layout():
    random = np.random.default_rng(8)
    for shape in ((5, 3), (12, 1), (9, 200)):
        assert np.isfinite(plane.place_clips(plane.standardise(random.normal(size=shape)), "tsne", 0)).all()


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "umap", None)
    with pytest.raises(ImportError, match="pip install umap-learn.*--method=tsne"):
        plane.require_method("umap")
    plane.require_method("tsne")


@pytest.fixture
def toy_map(tones):
    """A function that maps the toy task, with options of `map_data`."""
    root = tones()

    def make(names=("toy",), layers="all", **options) -> MapData:
        return make_map_data(
            load_task("tones"), choose_encoders(names, layers), FeatureStore(root / "store"), **options
        )

    return make


def test_a_map_tells_good_layers_from_bad(toy_map):
    data = toy_map()
    good = {panel.layer: panel for panel in data.panels}
    assert list(good) == ["level", "bands"] and good["bands"].is_default and not good["level"].is_default
    # not 1: standardised, the thirteen bands that hold only noise weigh as much as the three that hold a tone
    assert (
        good["bands"].purity > good["level"].purity + 0.1 and good["bands"].silhouette > good["level"].silhouette + 0.1
    )
    assert data.n_neighbours == 10 and all(panel.points.shape == (36, 2) for panel in data.panels)
    stored = embed("toy", load_task("tones").paths)
    assert good["bands"].purity == plane.compute_purity(plane.standardise(stored), data.y, 10)
    assert good["bands"].silhouette == pytest.approx(plane.compute_silhouette(plane.standardise(stored), data.y))
    table, scores = data.table(), data.scores()
    assert len(table) == 72 and set(table["class"]) == {"low", "middle", "high"}
    assert (table["clip"].str.split("_").str[0] == table["class"]).all()
    assert scores["purity"].tolist() == [panel.purity for panel in data.panels]
    assert scores["chance_purity"].iloc[0] == pytest.approx(11 / 35)


def test_clips_are_encoded_once_and_shared_with_lineval(toy_map, tmp_path, caplog):
    caplog.set_level("INFO", logger="evar")
    assert run(["lineval", "toy", "tones", f"--out={tmp_path / 'r'}"]) == cli.DONE
    assert sum(Bands.calls) == 36
    toy_map()
    toy_map(layers="default")
    assert sum(Bands.calls) == 36
    assert "encoded 0 clips; 36 were stored already" in caplog.text


def test_a_large_task_is_drawn_from_and_that_is_said(toy_map):
    data = toy_map(max_clips=15, seed=3)
    assert np.bincount(data.y).tolist() == [5, 5, 5] and len(data.paths) == 15 and sum(Bands.calls) == 15
    assert data.n_neighbours == 4  # a class has no more others
    assert data.notes == (
        "A class-balanced subset of 15 of the task's 36 clips, drawn with seed 3.",
    )  # toy has no input statistics


def test_input_statistics_of_a_map_are_said_and_used(toy_map):
    own, of_task = (toy_map(names=("toy_normalised",), norm_stats=stats) for stats in (None, "task"))
    assert f"mean {MINUS}3 and standard deviation 2.5 (constants of its own" in own.notes[0]
    assert "(statistics of all clips of the task)" in of_task.notes[0] and f"mean {MINUS}3 " not in of_task.notes[0]
    assert [p.silhouette for p in own.panels] != [p.silhouette for p in of_task.panels]


def test_bad_clips_are_left_out_and_counted(toy_map, tmp_path):
    (tmp_path / "data" / "tones" / "low_3.wav").write_bytes(b"no audio")
    data = toy_map()
    assert all(len(panel.clips) == 35 for panel in data.panels)
    assert data.notes == ("toy: 1 clips that could not be used are left out.",)
    assert "low_3.wav" not in set(data.table()["clip"])
    for path in sorted((tmp_path / "data" / "tones").glob("*.wav"))[:33]:
        path.write_bytes(b"none")
    with pytest.raises(ValueError, match="needs at least 5 clips, toy x tones has .* first: not decodable"):
        toy_map()


def test_map_figure_says_what_it_shows(toy_map):
    figure = draw_map(toy_map())
    said = texts(figure)
    assert {"tones, t-SNE", "t-SNE 1", "t-SNE 2", "low", "middle", "high"} <= set(said)
    title = next(text for text in said if text.startswith("toy (random weights) bands"))
    assert re.fullmatch(r"toy \(random weights\) bands \(default\)\nsilhouette 0\.\d\d, purity@10 \d\d %", title)
    caption = " ".join(" ".join(said).split())
    assert "t-SNE with perplexity 11.7" in caption and "chance 31 %" in caption and "leave-one-out" in caption
    colours = {tuple(np.round(points.get_facecolor()[0, :3], 3)) for points in figure.axes[0].collections}
    assert len(colours) == 3


def crowded(n_classes: int, n_panels: int = 1) -> MapData:
    y = np.tile(np.arange(n_classes), 3)
    points = np.random.default_rng(9).normal(size=(len(y), 2))
    panels = tuple(
        Panel("wide", f"block{i}", False, np.arange(len(y)), points, float("nan"), 0.5) for i in range(n_panels)
    )
    classes = tuple(f"class {label}" for label in range(n_classes))
    return MapData("crowd", "umap", classes, y, tuple(map(str, range(len(y)))), 2, panels)


def test_many_classes_have_markers_and_too_many_no_legend():
    styles = {pick_class_style(label, 40) for label in range(40)}
    assert len(styles) == 40 and {marker for _, marker in (pick_class_style(label, 8) for label in range(8))} == {"o"}
    assert len(POINT_COLOURS) == 8 and COLOURS[7] not in POINT_COLOURS  # the faint yellow
    some, many = draw_map(crowded(20)), draw_map(crowded(60))
    assert [text.get_text() for text in some.legends[0].get_texts()] == [f"class {label}" for label in range(20)]
    assert not many.legends and "60 classes, too many for a legend" in " ".join(" ".join(texts(many)).split())
    assert any("silhouette undefined" in text for text in texts(many)) and "UMAP 1" in texts(many)


def test_panels_are_laid_out_by_encoder():
    def panel(encoder: str, layer: str) -> Panel:
        return Panel(encoder, layer, False, np.arange(0), np.zeros((0, 2)), 0.0, 0.0)

    single = [panel(name, "x") for name in "abcd"]
    assert [len(row) for row in arrange_panels(single)] == [4]
    mixed = [*(panel("a", f"l{i}") for i in range(8)), panel("b", "l0")]
    assert [[one.encoder for one in row] for row in arrange_panels(mixed)] == [["a"] * 4, ["a"] * 4, ["b"]]


def test_a_figure_is_higher_by_its_caption():
    assert tuple(make_figure(3.5, 2.0).get_size_inches()) == (3.5, 2.0)
    for words in ("www MMM " * 20, "ill fit " * 40, "one\ntwo " + "word " * 40):
        captioned = make_figure(3.5, 2.0, words)
        text = captioned.texts[0]
        assert text.get_text().split() == words.split() and captioned.get_size_inches()[1] > 2.3
        captioned.set_dpi(200)  # as it is saved; letters are wider on coarser grids
        captioned.draw_without_rendering()
        extent, page = text.get_window_extent(), captioned.bbox
        assert extent.x0 >= 0 and 0.85 * page.width < extent.x1 <= page.width
        assert extent.y0 >= 0 and extent.y1 <= page.height - 2.0 * captioned.dpi
    assert text.get_text().startswith("one\ntwo word")


# --- the command line ----------------------------------------------------------------------------------------------------


def test_plot_clip_from_the_command_line(one_clip, tmp_path, capsys):
    assert run(["plot", "clip", str(one_clip), "--encoders=toy,toy_normalised", f"--out={tmp_path / 'r'}"]) == cli.DONE
    stem = f"clip_{one_clip.stem}"
    assert sorted(path.name for path in (tmp_path / "r").iterdir()) == [
        f"{stem}.{end}" for end in ("csv", "png", "svg")
    ]
    table = pd.read_csv(tmp_path / "r" / f"{stem}.csv")
    assert len(table) == 32 and table.columns.tolist() == ["encoder", "layer", "feature", "value"]
    expected = embed("toy", one_clip)[0]
    assert np.allclose(table["value"][:16], expected, rtol=1e-6)
    assert f"{stem}.png" in capsys.readouterr().out


def test_plot_sensitivity_from_the_command_line(one_clip, tmp_path):
    words = [str(one_clip), "--encoders=toy", "--layers=all", "--seconds=0.25", "--seed=4"]
    assert run(["plot", "sensitivity", *words, f"--out={tmp_path / 'paper' / 'figure2.png'}"]) == cli.DONE
    assert sorted(path.name for path in (tmp_path / "paper").iterdir()) == [
        f"figure2.{end}" for end in ("csv", "png", "svg")
    ]
    table = pd.read_csv(tmp_path / "paper" / "figure2.csv")
    assert set(table["layer"]) == {"level", "bands"} and set(table["alteration"]) == {*PANELS, "pitch_and_back"}
    assert table["value"][table["alteration"] == "time"].max() == 125  # ms, half of what --seconds leaves


def test_plot_map_from_the_command_line(tones, tmp_path, capsys):
    root = tones()
    words = ["map", "tones", "--encoders=toy", "--layers=bands", "--limit=9", f"--data_root={root / 'data'}"]
    assert run(["plot", *words, f"--out={tmp_path / 'r'}", f"--store={tmp_path / 's'}"]) == cli.DONE
    names = ["map_tones.csv", "map_tones.png", "map_tones.svg", "map_tones_scores.csv"]
    assert sorted(path.name for path in (tmp_path / "r").iterdir()) == names and (tmp_path / "s").exists()
    scores = pd.read_csv(tmp_path / "r" / "map_tones_scores.csv")
    assert scores["clips"].tolist() == [27] and scores["purity"].iloc[0] > 0.4
    out = capsys.readouterr().out
    assert "silhouette" in out and "purity@8" in out and "27 clips; purity by chance 30.8 %" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["clp", "FILE", "--encoders=toy"], "no picture 'clp'; it has clip, sensitivity, map; did you mean 'clip'?"),
        (["clip", "FILE", "--encoders=toyy"], "no encoder 'toyy'.*did you mean 'toy"),
        (["clip", "FILE"], "no encoders are named; give --encoders=NAME,NAME"),
        (["clip", "FILE", "--encoders=toy,toy"], "encoders must be named once each"),
        (["clip", "FILE", "--encoders=toy", "--layers=band"], "no layer 'band' in toy.*did you mean 'bands'"),
        (["clip", "FILE", "--encoders=toy", "--layers=bands,bands"], "layers must be named once each"),
        (["clip", "FILE", "--encoders=toy", "--method=umap"], "the picture clip takes no --method; it belongs to map"),
        (["clip", "FILE", "--encoders=toy", "--seed=1"], "clip takes no --seed; it belongs to sensitivity and map"),
        (["clip", "FILE", "--encoders=toy", "--start=9"], "--start must lie within the file, which has 0.5 s, got 9"),
        (["clip", "FILE", "--encoders=toy", "--start=-1"], "--start must be at least 0"),
        (["clip", "FILE", "--encoders=toy", "--seconds=long"], "--seconds must be a number, got 'long'"),
        (["clip", "FILE", "--encoders=toy", "--norm_stats=1,2"], "toy does not normalise its input"),
        (["clip", "FILE", "--encoders=toy_normalised", "--norm_stats=1,0"], "standard deviation above 0"),
        (["clip", "FILE", "--encoders=toy,toy_broken", "--weights=x.pth"], "one checkpoint for one encoder"),
        (["clip", "FILE", "--encoders=toy", "--colour=red"], "no flag --colour"),
        (["clip", "none.wav", "--encoders=toy"], "none.wav: the file is missing"),
        (["sensitivity", "JUNK", "--encoders=toy"], "junk.wav: not decodable as audio"),
        (["sensitivity", "FILE", "--encoders=toy", "--norm_stats=task"], "one clip has no training clips"),
        (["map", "tone", "--encoders=toy"], "no task 'tone'.*did you mean 'tones'"),
        (
            ["map", "tones", "--encoders=toy", "--method=tnse"],
            "no method 'tnse'; it has tsne, umap; did you mean 'tsne'?",
        ),
        (["map", "tones", "--encoders=toy", "--norm_stats=train"], "--norm_stats=train: a map has no rounds"),
        (["map", "tones", "--encoders=toy", "--norm_stats=taks"], "no norm_stats 'taks'.*did you mean 'task'"),
        (["map", "tones", "--encoders=toy", "--max_clips=3"], "at least 5 clips, got --max_clips=3"),
        (["map", "tones", "--encoders=toy", "--seed=-1"], "--seed must be at least 0, got -1"),
        (["map", "tones", "--encoders=toy", "--data_root=/none"], "36 of 36 clips missing under /none/tones"),
        (["map", "tones"], "no encoders are named"),
        (["map"], "evar plot needs TARGET"),
    ],
)
def test_wrong_words_are_told_before_any_work(tones, capsys, words, message):
    root = tones()
    (root / "junk.wav").write_bytes(b"no audio")
    places = {"FILE": str(root / "data" / "tones" / "low_0.wav"), "JUNK": str(root / "junk.wav")}
    words = [places.get(word, word) for word in words]
    assert run(["plot", *words, f"--out={root / 'results'}"]) == cli.WRONG
    captured = capsys.readouterr()
    assert not Bands.calls and not (root / "results").exists() and captured.err.count("\n") == 1
    assert re.search(message, captured.err), captured.err


def test_every_flag_of_a_picture_is_one_of_the_command():
    import inspect

    flags = set(inspect.signature(cli.COMMANDS["plot"]).parameters)
    assert {flag for taken in PICTURES.values() for flag in taken} < flags
    text = inspect.getdoc(cli.COMMANDS["plot"])
    assert all(f"--{flag}" in text for flag in flags - {"picture", "target"})
    assert parse_layers("") == "default"
