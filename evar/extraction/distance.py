"""`evar distance`: the Fréchet audio distance between the sounds of two folders, for any encoder and layer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evar.audio.folders import LeftOut, find_audio
from evar.audio.reading import ClipPolicy
from evar.config.messages import tell
from evar.extraction.extract import Extraction, extract, extract_each
from evar.extraction.frame_request import FrameRequest
from evar.extraction.plan import feature_key
from evar.numeric.frechet import FrechetDistance, list_numbers, measure_frechet_distance
from evar.storage.atomic import write_atomic
from evar.storage.feature_store import FeatureStore
from evar.storage.frame_store import FrameStore, StoredFrames

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evar.encoders.base import Encoder

    #: a folder of sounds, or paths of files
    Sounds = str | Path | Sequence[str | Path]

#: a file is one vector, or each frame of the encoder is one
WINDOWS = ("clip", "frame")


@dataclass(frozen=True)
class FolderDistance:
    """The distances between two sets of sounds, a layer each.

    Attributes:
        encoder, weights, weights_sha256: whose vectors.
        window: "clip", "frame", or seconds.
        sounds: how the two sets are called.
        layers: name -> distance.
        bad: path -> why a file could not be used.
        seed: of the random parts.
        extraction: what can change a vector.
    """

    encoder: str
    weights: str
    weights_sha256: str
    window: str | float
    sounds: tuple[str, str]
    layers: dict[str, FrechetDistance]
    bad: dict[str, str]
    seed: int
    extraction: dict[str, Any]

    def describe(self) -> str:
        """Return a table for a terminal, with what a reader must know below it."""
        header = ["layer", "width", "vectors", "distance", "extrapolated", "standard error", "R2"]
        lines = [header]
        for name, one in self.layers.items():
            line = one.extrapolation
            told = ["-", "-", "-"]
            if line is not None:
                told = [f"{line.value:.4g}", f"{line.standard_error:.2g}", f"{line.r_squared:.3f}"]
            vectors = f"{one.n_vectors[0]} and {one.n_vectors[1]}"
            lines.append([name, str(one.width), vectors, f"{one.value:.4g}", *told])
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        table = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in lines]
        first = next(iter(self.layers.values()))
        notes = [
            f"{self.sounds[0]} ({first.n_files[0]} files) and {self.sounds[1]} ({first.n_files[1]} files), {self.encoder}, "
            f"weights {self.weights}: squared Fréchet distance of {self._describe_window()}.",
            "distance: has no interval, because it is biased upwards at this number of sounds; the standard error belongs "
            "to the extrapolated distance.",
            "extrapolated: of infinitely many vectors, by a line against 1 / N; its standard error is by the jackknife over "
            "files. Distances of different layers, widths or encoders cannot be compared.",
        ]
        warnings = dict.fromkeys(f"{name}: {text}." for name, one in self.layers.items() for text in one.warnings)
        bad = [f"left out: {path}: {reason}" for path, reason in list(self.bad.items())[:5]]
        return "\n".join([*table, "", *notes, *(f"WARNING: {text}" for text in warnings), *bad])

    def _describe_window(self) -> str:
        if self.window == "clip":
            return "one vector a file, pooled over time as each layer declares"
        return "the encoder's own frames" if self.window == "frame" else f"means of frames over {self.window:g} s"

    def to_plain(self) -> dict[str, Any]:
        """Return everything as plain data, as the JSON file holds it."""
        return {
            "made_by": "evar distance",
            "encoder": self.encoder,
            "weights": self.weights,
            "weights_sha256": self.weights_sha256,
            "window": self.window,
            "sounds": list(self.sounds),
            "seed": self.seed,
            "extraction": self.extraction,
            "layers": {name: list_numbers(one) for name, one in self.layers.items()},
            "bad": self.bad,
        }

    def save(self, path: str | Path) -> None:
        """Write a JSON file."""
        write_atomic(Path(path), (json.dumps(self.to_plain(), indent=2, ensure_ascii=False) + "\n").encode())


def parse_window(window: str | float) -> str | float:
    """Read what a vector stands for: "clip", "frame", or seconds.

    Args:
        window: one of the words, or a number above 0, also as text.

    Returns:
        The word, or the seconds as a number.

    Raises:
        ValueError: if it is none of these.

    Example:
        >>> parse_window("frame"), parse_window("0.96")
        ('frame', 0.96)
    """
    if window in WINDOWS:
        return window
    try:
        seconds = float(window)
    except ValueError:
        seconds = float("nan")
    if not 0 < seconds < float("inf"):
        raise ValueError(f"window must be clip, frame or seconds above 0, such as 0.96, got {window!r}")
    return seconds


def frechet_distance(
    encoder: Encoder | str,
    first: Sounds,
    second: Sounds,
    layers: str | Sequence[str | int] = "default",
    window: str | float = "clip",
    *,
    store: str | Path | FeatureStore | None = None,
    batch_size: int | None = None,
    seed: int = 0,
) -> FolderDistance:
    """Measure how far apart the sounds of two folders are in the space of an encoder: the Fréchet audio distance.

    Vectors come from the feature store: what is there for the same window and layers is not encoded again. Another window
    keeps other vectors, for which the files are encoded again.

    Args:
        encoder: as `load_encoder` gives it, or its name.
        first, second: folders (searched to the bottom), or lists of files.
        layers: "default" (each default layer by itself), "all", or names or positions.
        window: what a vector stands for. "clip": a file, pooled over time as the layer declares. "frame": each frame of the
            encoder; VGGish's are the windows of 0.96 s of the published distance. Seconds: the mean of the frames within as
            many seconds. Frames are kept in half precision.
        store: the feature store, or its folder; None takes the user's own.
        batch_size: files a batch; None takes as many as `encoder.batch_seconds` of audio.
        seed: of the random parts of the extrapolation.

    Returns:
        A distance for each layer, with its extrapolation and what makes it doubtful.

    Raises:
        ValueError: if a layer or window is unknown, or a set has no sounds, or fewer than 2 vectors.
        OSError: if a folder is not there.

    Source: Kilgour et al., "Fréchet Audio Distance", Interspeech 2019; Gui et al., ICASSP 2024, for other encoders, layers
        and the extrapolation.

    Example:
        >>> import tempfile
        >>> import soundfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("a", "b"):
        ...         (Path(folder) / name).mkdir()
        ...         for number in range(2):
        ...             noise = np.random.default_rng(number).normal(size=16000) * (0.1 if name == "a" else 0.01)
        ...             soundfile.write(Path(folder) / name / f"{number}.wav", noise, 16000)
        ...     found = frechet_distance("logmel", f"{folder}/a", f"{folder}/b", window="frame", store=f"{folder}/store")
        ...     found.layers["logmel"].value > 100, found.layers["logmel"].n_files
        (True, (2, 2))
    """
    from evar.encoders.layer_choice import choose_layers

    parsed = parse_window(window)
    paths = [list_sounds(sounds) for sounds in (first, second)]
    if isinstance(encoder, str):
        from evar.encoders import load_encoder

        encoder = load_encoder(encoder)
    wanted = choose_layers(encoder, layers)
    opened = store if isinstance(store, FeatureStore) else FeatureStore(store)
    vectors = _Vectors.make(encoder, [*paths[0], *paths[1]], wanted, parsed, opened, batch_size)
    names = (_name_sounds(first), _name_sounds(second))
    bad = {str([*paths[0], *paths[1]][at]): reason for at, reason in sorted(vectors.extraction.bad.items())}
    usable = _find_usable(vectors.extraction, len(paths[0]), names, bad)
    found = {}
    for layer in wanted:
        (one, of_one), (other, of_other) = (vectors.read(layer, positions) for positions in usable)
        found[layer] = measure_frechet_distance(one, other, of_one, of_other, seed=seed)
    extraction = _describe_extraction(vectors.extraction, wanted)
    return FolderDistance(
        encoder.name, encoder.weights_label, encoder.weights_sha256, parsed, names, found, bad, seed, extraction
    )


def _find_usable(
    extraction: Extraction, n_first: int, names: tuple[str, str], bad: Mapping[str, str]
) -> tuple[list[int], list[int]]:
    """Find the positions of the files of both sets that have vectors; the first `n_first` files are the first set.

    Raises:
        ValueError: if a set has none; it is named, with the first file of `bad` (path -> reason).
    """
    usable = [at for at, row in enumerate(extraction.rows) if row is not None]
    sets = [at for at in usable if at < n_first], [at for at in usable if at >= n_first]
    for name, positions in zip(names, sets, strict=True):
        if not positions:
            raise ValueError(f"no sound of {name} could be used, first {': '.join(next(iter(bad.items())))}")
    return sets


def _describe_extraction(extraction: Extraction, layers: Sequence[str]) -> dict[str, Any]:
    """Return what can change a vector of these layers, as plain data."""
    key = extraction.key
    facts = {name: getattr(key, name) for name in ("sample_rate", "resampler", "norm_stats", "revision")}
    return {**facts, "layers": {name: key.layers[name] for name in layers}}


def _name_sounds(sounds: Sounds) -> str:
    return str(sounds) if isinstance(sounds, str | Path) else f"{len(sounds)} files"


def list_sounds(sounds: Sounds) -> list[Path]:
    """List the audio files of a folder, or those that are given.

    Args:
        sounds: a folder, which is searched to the bottom, or paths of files.

    Raises:
        ValueError: if there is none.
        OSError: if there is no such folder.
    """
    if not isinstance(sounds, str | Path):
        files = [Path(one) for one in sounds]
    elif not Path(sounds).is_dir():
        raise NotADirectoryError(f"expected a folder of sounds, got {sounds}, which is none")
    else:
        left_out = LeftOut()
        files = [Path(path) for path in find_audio(sounds, left_out)]
        if text := left_out.describe():
            tell(f"{sounds}: {text}")
    if not files:
        raise ValueError(f"no audio files in {sounds}; a set needs at least 2 vectors")
    return files


@dataclass(frozen=True)
class _Vectors:
    """Vectors or frames of the files of both sets, in the store."""

    store: FeatureStore
    extraction: Extraction
    frames: StoredFrames | None

    @classmethod
    def make(
        cls,
        encoder: Encoder,
        paths: Sequence[Path],
        layers: Sequence[str],
        window: str | float,
        store: FeatureStore,
        batch_size: int | None,
    ) -> _Vectors:
        """Encode what is not stored yet."""
        policy = ClipPolicy(seconds=None)
        if window == "clip":
            return cls(store, extract(encoder, paths, policy, store, batch_size, encoder.name), None)
        seconds = 0.0 if window == "frame" else float(window)
        request = FrameRequest(_in_order(encoder, layers), seconds)
        wider = FrameStore.beside(store).wider(feature_key(encoder, policy, request))
        request = FrameRequest(_in_order(encoder, [*layers, *wider]), seconds)
        (found,) = extract_each(encoder, [encoder.norm_stats], paths, policy, store, batch_size, encoder.name, request)
        known = FrameStore.beside(store).places(found.key)
        places = [None if row is None else known[row] for row in found.rows]
        return cls(store, found, StoredFrames({name: encoder.layer(name).width for name in request.layers}, places))

    def read(self, layer: str, positions: Sequence[int]) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Read (vectors, width) of some files, and (vectors,) the file of each; vectors that are not finite are an error."""
        if self.frames is None:
            rows = [str(self.extraction.rows[at]) for at in positions]
            return self.store.load(self.extraction.key, rows, layer), np.arange(len(positions))
        frames, counts = self.frames.join(list(positions), layer)
        return frames.numpy(), np.repeat(np.arange(len(positions)), counts.numpy())


def _in_order(encoder: Encoder, layers: Sequence[str]) -> tuple[str, ...]:
    return tuple(info.name for info in encoder.layer_infos if info.name in layers)
