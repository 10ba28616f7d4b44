"""The words of a command line as checked values, before names are looked up."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from evar import config as configs
from evar.config.encoder import display_name
from evar.config.registry import near_miss
from evar.extraction.fusion import ATTENTION, FITTED_FUSIONS, FUSIONS

#: scores that a fusion search can maximise
OBJECTIVES = ("mean_score", "mean_rank")


#: where the cells of a grid may run
ENGINES = ("local", "ray")


@dataclass(frozen=True)
class Settings:
    """The values of a command line; `lineval.py --help` explains the words.

    Attributes:
        encoders, tasks: names.
        layers: "default", "all" or layer names.
        fusion: "none" probes each layer by itself; "concat", "average", "pca" or "weighted" make one feature of them;
            "search" looks for the layers whose concatenation serves the tasks best; "attention" is that of protocols whose
            probe reads frames.
        objective: score that a search maximises on validation clips: "mean_score" or "mean_rank" over the tasks.
        max_layers: how many layers a search may put together.
        export: name under which a search's choice becomes an encoder.
        protocol: name in `config/protocols`.
        seeds: how many, from 0; more than one only where something is random; None leaves it to the protocol.
        learning_rate: a number in place of the protocol's, or "search" to choose from the protocol's grid on validation
            clips; None leaves it to the protocol.
        data_root: folder that holds the tasks' folders.
        weights: None, "random", a path, a url or "hf:org/name"; or "ENCODER=WHAT,ENCODER=WHAT", each for that encoder.
        norm_stats: "default", "train", "task" or (mean, std), for encoders that normalise their input by statistics;
            None leaves it to the protocol.
        device: "auto", "cpu", "cuda", "cuda:1", "mps".
        batch_size: clips a batch; None lets the encoder say.
        limit: at most this many clips of each split or fold.
        out: results folder.
        store: folder of the feature store.
        skip_bad: leave unreadable clips out of the test set instead of counting them as wrong.
        frames_gb: 10^9 bytes of frames that a cell may put on disk, for protocols whose probe reads frames.
        only: the cells to run, "ENCODER:TASK" each; empty: all of the grid.
        engine: where the cells run: "local", processes of this machine, or "ray".
        jobs: how many run at the same time (on each node of a cluster); they share its cores.
        address: of an existing Ray cluster, such as "auto" or "ray://HOST:10001"; None starts one here.
        save_head: keep the fitted probe of each row as a classifier file.
    """

    encoders: tuple[str, ...]
    tasks: tuple[str, ...]
    layers: str | tuple[str, ...] = "default"
    fusion: str = "none"
    objective: str = "mean_score"
    max_layers: int = 4
    export: str | None = None
    protocol: str = "linear"
    seeds: int | None = None
    learning_rate: str | None = None
    data_root: str | None = None
    weights: str | None = None
    norm_stats: str | tuple[float, float] | None = None
    device: str = "auto"
    batch_size: int | None = None
    limit: int | None = None
    out: str = "results"
    store: str | None = None
    skip_bad: bool = False
    frames_gb: float = 50.0
    only: tuple[str, ...] = ()
    engine: str = "local"
    jobs: int = 1
    address: str | None = None
    save_head: bool = False

    def __post_init__(self) -> None:
        _check_names(self)
        _check_cells(self)
        _check_engine(self)
        _check_fusion(self)
        _check_statistics(self.norm_stats)
        _check_numbers(self)
        _check_weights(self)

    def weights_of(self, encoder: str) -> str | None:
        """Return the weights that are requested for one encoder; None: its own.

        Example:
            >>> Settings(("logmel",), ("esc10",), weights="random").weights_of("logmel")
            'random'
        """
        found = weights_by_encoder(self.weights, self.encoders)
        return next((what for name, what in found if name in ("", encoder)), None)

    def wants(self, encoder: str, task: str) -> bool:
        """Return whether a cell is to be run.

        Example:
            >>> settings = Settings(("logmel",), ("esc10", "gm_pitch"), only=("logmel:esc10",))
            >>> settings.wants("logmel", "esc10"), settings.wants("logmel", "gm_pitch")
            (True, False)
        """
        return not self.only or f"{encoder}:{task}" in self.only


def _check_names(settings: Settings) -> None:
    if not settings.encoders or not settings.tasks:
        raise ValueError("at least one encoder and one task are needed; see `evar encoders` and `evar tasks`")
    for kind, chosen in (("encoders", settings.encoders), ("tasks", settings.tasks)):
        if len(set(chosen)) != len(chosen):
            raise ValueError(f"{kind} must be named once each, got {', '.join(chosen)}")


def _check_cells(settings: Settings) -> None:
    cells = [f"{encoder}:{task}" for encoder in settings.encoders for task in settings.tasks]
    for cell in settings.only:
        if cell not in cells:
            raise ValueError(f"--only names cells of the grid as ENCODER:TASK, got {cell!r}; {near_miss(cell, cells)}")


def _check_engine(settings: Settings) -> None:
    if settings.engine not in ENGINES:
        raise ValueError(f"no engine {settings.engine!r}; {near_miss(settings.engine, ENGINES)}")
    if settings.address is not None and settings.engine != "ray":
        raise ValueError(
            f"--address={settings.address} is a Ray cluster's and needs --engine=ray, got {settings.engine}"
        )


def _check_fusion(settings: Settings) -> None:
    known = ["none", *FUSIONS, *FITTED_FUSIONS, ATTENTION, "search"]
    if settings.fusion not in known:
        raise ValueError(f"no fusion {settings.fusion!r}; {near_miss(settings.fusion, known)}")
    if settings.objective not in OBJECTIVES:
        raise ValueError(f"no objective {settings.objective!r}; {near_miss(settings.objective, OBJECTIVES)}")
    if settings.export is not None and settings.fusion != "search":
        raise ValueError("--export names what --fusion=search chooses; for layers of your own see `evar fuse --help`")
    if settings.fusion != "none" and settings.layers == "default":
        raise ValueError("--fusion needs --layers=all or --layers=NAME,NAME: the layers to fuse")


def _check_statistics(norm_stats: str | tuple[float, float] | None) -> None:
    if isinstance(norm_stats, str) and norm_stats not in configs.NORM_STATS:
        known = [*configs.NORM_STATS, "MEAN,STD"]
        raise ValueError(f"no norm_stats {norm_stats!r}; {near_miss(norm_stats, known)}")
    if isinstance(norm_stats, tuple) and not (
        len(norm_stats) == 2 and all(map(math.isfinite, norm_stats)) and norm_stats[1] > 0
    ):
        raise ValueError(f"norm_stats must be a mean and a standard deviation above 0, got {norm_stats}")


def _check_numbers(settings: Settings) -> None:
    if not settings.frames_gb > 0:
        raise ValueError(f"frames_gb must be above 0, got {settings.frames_gb}")
    for name in ("seeds", "batch_size", "max_layers", "jobs"):
        value = getattr(settings, name)
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")


def _check_weights(settings: Settings) -> None:
    found = weights_by_encoder(settings.weights, settings.encoders)
    shared = next((what for encoder, what in found if not encoder), None)
    if shared not in (None, "random") and len(settings.encoders) > 1:
        raise ValueError(
            f"--weights={settings.weights} is one checkpoint for one encoder, got {len(settings.encoders)} encoders; "
            "say which is whose: --weights=ENCODER=WHAT,ENCODER=WHAT"
        )


def weights_by_encoder(text: str | None, encoders: Sequence[str]) -> list[tuple[str, str]]:
    """Split --weights into (encoder, weights); the encoder is "" if the weights are for all.

    An encoder may be named as on the command line, or as tables print it.

    >>> weights_by_encoder("ast=a,b.pth,vggish=random", ["ast", "vggish"])
    [('ast', 'a,b.pth'), ('vggish', 'random')]
    >>> weights_by_encoder("random", ["ast", "vggish"])
    [('', 'random')]
    >>> weights_by_encoder("mine:Mine=a.pth", ["some/mine.py:Mine", "vggish"])
    [('some/mine.py:Mine', 'a.pth')]
    """
    if text is None:
        return []
    by_name = {display_name(encoder): encoder for encoder in encoders} | {encoder: encoder for encoder in encoders}
    names = "|".join(re.escape(name) for name in sorted(by_name, key=len, reverse=True))
    pieces = re.split(rf"(?:^|,)({names})=", text)
    if len(pieces) == 1 or pieces[0]:
        return [("", text)]
    return [(by_name[name], what) for name, what in zip(pieces[1::2], pieces[2::2], strict=True)]
