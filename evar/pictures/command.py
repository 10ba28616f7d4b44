"""The steps of `evar plot`: check every word, make the data, draw it, write picture and numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evar import config as configs
from evar.config.registry import near_miss
from evar.pictures import PICTURES
from evar.pictures.clip import plot_clip
from evar.pictures.loading import Chosen, choose_encoders, parse_layers, read_sound
from evar.pictures.map import MapData, make_map_data, plot_map
from evar.pictures.plane import METHODS, MIN_CLIPS, require_method
from evar.pictures.saving import choose_stem
from evar.pictures.sensitivity import plot_sensitivity

if TYPE_CHECKING:
    from evar.data.task import Task

#: of a file, unless --seconds says otherwise: each picture encodes it several times over
SECONDS = 30.0
MAX_CLIPS = 2000


def plot(
    picture: str,
    target: str,
    encoders: str = "",
    *,
    layers: str = "default",
    weights: str | None = None,
    norm_stats: str | tuple[float, float] | None = None,
    device: str = "cpu",
    out: str = "results",
    **flags: Any,
) -> tuple[list[Path], MapData | None]:
    """Make one picture.

    Args:
        picture: a name in `PICTURES`.
        target: an audio file, or for "map" a task.
        encoders: comma list, or "all".
        layers: "default", "all", or a comma list.
        weights: None, "random", or one checkpoint for one encoder.
        norm_stats: None or "default" (an encoder's constants), (mean, std), or for "map" also "task".
        device: "cpu", "cuda", ...
        out: folder, or the path of the picture, ending in .png or .svg.
        **flags: those of `PICTURES[picture]`; None or "" means the default.

    Returns:
        The files written, and the data of a map.

    Raises:
        ValueError: if a name or flag is unknown or does not belong to the picture, or the file cannot be read.
        OSError: if clips or a checkpoint are missing.
        ImportError: if an encoder's or the method's package is not installed.
    """
    given = {name: value for name, value in flags.items() if value not in (None, "")}
    _check_words(picture, given, norm_stats)
    names = [name.strip() for name in encoders.split(",") if name.strip()]
    names = configs.names("encoders") if names == ["all"] else names

    def choose() -> list[Chosen]:
        return choose_encoders(names, parse_layers(layers), weights, norm_stats, device)

    if picture == "map":
        method = given.get("method", METHODS[0])
        task = _load_task(target, given)
        data = _make_map(task, choose(), method, norm_stats, given)
        name = f"map_{task.name}" + ("" if method == METHODS[0] else f"_{method}")
        return plot_map(data, choose_stem(out, name)), data
    sound = read_sound(target, float(given.get("seconds", SECONDS)), float(given.get("start", 0.0)))
    stem = choose_stem(out, f"{picture}_{Path(target).stem}")
    if picture == "clip":
        return plot_clip(sound, choose(), stem), None
    return plot_sensitivity(sound, choose(), stem, int(given.get("seed", 0))), None


def _check_words(picture: str, given: Mapping[str, Any], norm_stats: str | tuple[float, float] | None) -> None:
    """Check everything that can be wrong before a file is opened."""
    if picture not in PICTURES:
        raise ValueError(f"no picture {picture!r}; {near_miss(picture, list(PICTURES))}")
    for flag in given:
        if flag not in PICTURES[picture]:
            owners = [name for name, taken in PICTURES.items() if flag in taken]
            where = f"it belongs to {' and '.join(owners)}" if owners else "no picture has it"
            raise ValueError(f"the picture {picture} takes no --{flag}; {where}")
    _check_statistics(picture, norm_stats)
    method = given.get("method", METHODS[0])
    if method not in METHODS:
        raise ValueError(f"no method {method!r}; {near_miss(method, METHODS)}")
    require_method(method)
    if int(given.get("max_clips", MAX_CLIPS)) < MIN_CLIPS:
        raise ValueError(f"a map needs at least {MIN_CLIPS} clips, got --max_clips={given['max_clips']}")
    for flag in ("seed", "start"):
        if float(given.get(flag, 0)) < 0:
            raise ValueError(f"--{flag} must be at least 0, got {given[flag]}")


def _check_statistics(picture: str, norm_stats: str | tuple[float, float] | None) -> None:
    """Check where the statistics of the input normalisation come from."""
    words = ["default", "task"] if picture == "map" else ["default"]
    if norm_stats == "train" or (norm_stats == "task" and picture != "map"):
        why = "a map has no rounds" if picture == "map" else "one clip has no training clips"
        raise ValueError(f"--norm_stats={norm_stats}: {why}; take {', '.join(words)} or numbers MEAN,STD")
    if isinstance(norm_stats, str) and norm_stats not in words:
        raise ValueError(f"no norm_stats {norm_stats!r}; {near_miss(norm_stats, [*words, 'MEAN,STD'])}")


def _load_task(name: str, given: Mapping[str, Any]) -> Task:
    """Load the task, and prepare its clips unless they are rendered at first use."""
    from evar.data.task import load_task

    limit = given.get("limit")
    task = load_task(name, given.get("data_root"), None if limit is None else int(limit))
    if not task.config.builder:
        task.require_files()
    return task


def _make_map(
    task: Task,
    chosen: Sequence[Chosen],
    method: str,
    norm_stats: str | tuple[float, float] | None,
    given: Mapping[str, Any],
) -> MapData:
    from evar.data.task import prepare
    from evar.storage.feature_store import FeatureStore

    prepare(task)
    task.require_files()
    seed, max_clips = int(given.get("seed", 0)), int(given.get("max_clips", MAX_CLIPS))
    batch_size = given.get("batch_size")
    return make_map_data(
        task, chosen, FeatureStore(given.get("store")), method, seed, max_clips, norm_stats, batch_size
    )
