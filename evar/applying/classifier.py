"""A trained classifier in Python: `evar.load_classifier("birds.safetensors").predict(["a.wav", "b.wav"])`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evar.applying.clips import Embedded, Sound, Statistics, VectorRecipe, embed_sounds
from evar.applying.encoders import EncoderRequest, load_same_encoder
from evar.applying.windows import Windows, embed_windows
from evar.audio.reading import AudioError, ClipPolicy
from evar.classifiers.file import read_classifier
from evar.classifiers.predicting import Predicted, choose_heads, predict_vectors
from evar.encoders.pooling import describe_pooling
from evar.extraction.audio_input import list_clips, require_rate
from evar.probes.saved import SavedProbe, restore_probe

if TYPE_CHECKING:
    import pandas as pd

    from evar.encoders.base import Encoder

#: clips that are predicted at a time
_CLIPS_AT_ONCE = 256


@dataclass(frozen=True)
class ClipPrediction:
    """The prediction for one clip or window.

    Attributes:
        sound: the clip.
        label: predicted class; labels of the clip, joined by ";"; or a number. None for a clip that cannot be used.
        shares: class -> probability; empty for numbers and for clips that cannot be used.
        problem: why the clip cannot be used; "" where it can.
        cut_seconds: seconds of the file, where only its beginning was used; else 0.
        start, end: seconds of a window; None for whole clips.
    """

    sound: Sound
    label: str | float | None
    shares: dict[str, float]
    problem: str = ""
    cut_seconds: float = 0.0
    start: float | None = None
    end: float | None = None


class Classifier:
    """A classifier file, ready to predict. The encoder is loaded at the first prediction.

    Args:
        path: of the classifier file.
        weights: where the encoder's checkpoint is on this machine, in place of what the file says.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
        trust_code: import an encoder of an author's own that the file names.

    Attributes:
        record: what the file says: encoder, layers, classes, thresholds, score, licences, versions.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no classifier of evar.
    """

    def __init__(
        self, path: str | Path, weights: str | None = None, device: str = "auto", *, trust_code: bool = False
    ) -> None:
        self.path = Path(path)
        saved: list[SavedProbe]
        self.record, saved = read_classifier(path)
        self._probes = [restore_probe(probe) for probe in saved]
        self._weights, self._device, self._trust_code = weights, device, trust_code

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the probabilities; empty for numbers."""
        return self.record.task.classes

    @cached_property
    def encoder(self) -> Encoder:
        """The encoder that the classifier was trained on.

        Raises:
            ValueError: if the weights, options or poolings here are others than those that it was trained on.
            OSError, ImportError: if it cannot be loaded.
        """
        facts = self.record.encoder
        request = EncoderRequest(
            str(self.path), facts.request, facts.weights, facts.weights_label, facts.weights_sha256, facts.options,
            None, f"train it again: evar train {self.record.task.name} --encoder={facts.name} -o {self.path.name}",
        )  # fmt: skip
        encoder = load_same_encoder(request, self._weights, self._device, trust_code=self._trust_code)
        poolings = {name: describe_pooling(encoder.layer(name).pooling) for name in self.record.feature.layers}
        if poolings != self.record.feature.pooling or str(encoder.revision) != facts.revision:
            raise ValueError(
                f"{self.path} was made by revision {facts.revision or 'none'} of {facts.name} with poolings "
                f"{self.record.feature.pooling}, but here "
                f"they are {encoder.revision or 'none'} and {poolings}; {request.again}"
            )
        return encoder

    def predict(
        self,
        audio: Any,
        *,
        window: float | None = None,
        hop: float | None = None,
        round: str = "",
        sample_rate: int | None = None,
        batch_size: int | None = None,
        errors: str = "return",
    ) -> pd.DataFrame:
        """Predict sounds.

        Args:
            audio: all that `evar.embed` takes: a path, samples, a dictionary of `datasets`, or a list of these.
            window: seconds of a window; recordings of any length are then predicted window by window. None predicts clips,
                cut as those of the task were.
            hop: seconds from the beginning of a window to that of the next; None: windows touch each other.
            round: of a file with several heads, the one that predicts; "" averages all.
            sample_rate: Hz of samples that do not say it; None: the encoder's.
            batch_size: clips a batch; None takes as many as `encoder.batch_seconds` of audio.
            errors: "return" gives clips that cannot be used a row without values and the reason in `problem`; "raise"
                raises the reason of the first.

        Returns:
            One row for each clip or window, in the order given: `path` (or "clip 0" for samples), of windows `start` and
            `end` in seconds, `predicted`, `p_CLASS` for each class, and `problem`, which is "" for clips that could be used.

        Raises:
            ValueError: if a value is not legal, or as `encoder`.
            AudioError: under errors="raise".

        Example:
            >>> classifier = Classifier("birds.safetensors")  # doctest: +SKIP
            >>> classifier.predict(["a.wav", "b.wav"])[["path", "predicted"]]  # doctest: +SKIP
        """
        import pandas as pd

        if errors not in ("return", "raise"):
            raise ValueError(f"errors must be return or raise, got {errors!r}")
        rows, windows = [], Windows.of(window, hop)
        for one in self.predict_each(
            name_sounds(audio),
            windows=windows,
            round=round,
            sample_rate=None if sample_rate is None else require_rate(sample_rate),
            batch_size=batch_size,
        ):
            if one.problem and errors == "raise":
                raise AudioError(f"{one.sound.name}: {one.problem}")
            rows.append(self.make_row(one, with_windows=windows is not None))
        return pd.DataFrame(rows, columns=self.list_columns(with_windows=windows is not None))

    def predict_each(
        self,
        sounds: Iterable[Sound],
        *,
        windows: Windows | None = None,
        round: str = "",
        sample_rate: int | None = None,
        batch_size: int | None = None,
    ) -> Iterator[ClipPrediction]:
        """Yield the prediction of each clip or window, in the order given and in bounded memory.

        Args:
            sounds: taken a few at a time.
            windows: how each sound is cut; None for clips, cut as those of the task were.
            round, sample_rate, batch_size: as for `predict`.

        Raises:
            ValueError: as `predict`.
        """
        heads = choose_heads(self.record, round)
        statistics: list[Statistics] = []
        for at in heads:
            own = self.record.heads[at].norm_stats
            statistics.append(None if own is None else (float(own[0]), float(own[1])))
        clip = self.record.clip
        recipe = VectorRecipe(
            self.record.feature.layers,
            self.record.feature.fusion,
            ClipPolicy(clip.seconds, clip.pad, clip.crop),
            tuple(dict.fromkeys(statistics)),
        )
        if windows is None:
            found = embed_sounds(self.encoder, sounds, recipe, sample_rate=sample_rate, batch_size=batch_size)
        else:
            found = embed_windows(self.encoder, sounds, recipe, windows, sample_rate=sample_rate, batch_size=batch_size)
        portion: list[Embedded] = []
        for one in found:
            portion.append(one)
            if len(portion) >= _CLIPS_AT_ONCE:
                yield from self._predict_portion(portion, heads, statistics)
                portion = []
        yield from self._predict_portion(portion, heads, statistics)

    def list_columns(self, columns: Sequence[str] = (), *, with_windows: bool = False) -> list[str]:
        """Return the names of the columns of a table of predictions.

        Args:
            columns: of a table that are carried along.
            with_windows: whether rows are windows.
        """
        times = ["start", "end"] if with_windows else []
        return ["path", *times, *columns, "predicted", *(f"p_{name}" for name in self.classes), "problem"]

    def make_row(self, one: ClipPrediction, *, with_windows: bool = False) -> list[Any]:
        """Return the cells of one row of a table of predictions; those of a clip that cannot be used are None."""
        times = [one.start, one.end] if with_windows else []
        shares = [one.shares.get(name) for name in self.classes]
        return [one.sound.name, *times, *one.sound.columns, one.label, *shares, one.problem]

    def _predict_portion(
        self, portion: Sequence[Embedded], heads: Sequence[int], statistics: Sequence[Statistics]
    ) -> Iterator[ClipPrediction]:
        usable = [one for one in portion if not one.problem]
        rows = [np.stack([one.vectors[stats] for one in usable]) for stats in statistics] if usable else []
        found = predict_vectors(self.record, self._probes, heads, rows) if usable else None
        at = 0
        for one in portion:
            if found is None or one.problem:
                yield ClipPrediction(one.sound, None, {}, one.problem, one.cut_seconds, one.start, one.end)
                continue
            label, shares = self._read_prediction(found, at)
            at += 1
            yield ClipPrediction(one.sound, label, shares, "", one.cut_seconds, one.start, one.end)

    def _read_prediction(self, found: Predicted, at: int) -> tuple[str | float, dict[str, float]]:
        if found.shares is None:
            return float(found.values[at]), {}
        shares = dict(zip(self.classes, map(float, found.shares[at]), strict=True))
        if self.record.task.kind == "multilabel":
            return ";".join(name for name, has in zip(self.classes, found.values[at], strict=True) if has), shares
        return self.classes[int(found.values[at])], shares


def load_classifier(
    path: str | Path, weights: str | None = None, device: str = "auto", *, trust_code: bool = False
) -> Classifier:
    """Load a classifier that `evar train` or `evar lineval --save_head` wrote.

    Args:
        path: of the file, which ends in .safetensors. Nothing in it is run: it holds numbers and text.
        weights: where the encoder's checkpoint is on this machine, in place of what the file says.
        device: where the encoder runs: "auto", "cpu", "cuda", "cuda:1" or "mps".
        trust_code: import an encoder of an author's own that the file names; a file may be a stranger's.

    Returns:
        The classifier; its encoder is loaded at the first prediction, and refused if its weights are others than those
        that the classifier was trained on.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no classifier of evar, or of a later format.

    Example:
        >>> classifier = load_classifier("birds.safetensors")  # doctest: +SKIP
        >>> table = classifier.predict(["a.wav", "b.wav"])  # doctest: +SKIP
        >>> load_classifier("missing.safetensors")
        Traceback (most recent call last):
        FileNotFoundError: no classifier missing.safetensors here; `evar train TASK --encoder=NAME -o ...
    """
    return Classifier(path, weights, device, trust_code=trust_code)


def name_sounds(audio: Any) -> list[Sound]:
    """Return the clips of any value that can hold audio, with names for a table.

    Args:
        audio: as for `evar.embed`.

    Returns:
        Files by their paths, others as "clip NUMBER".

    Raises:
        ValueError: as `evar.extraction.audio_input.list_clips`.

    Example:
        >>> [sound.name for sound in name_sounds(["a.wav", np.zeros(8000)])]
        ['a.wav', 'clip 1']
    """
    sounds = []
    for position, clip in enumerate(list_clips(audio)):
        name = f"clip {position}" if not isinstance(clip.source, Path) else str(clip.source)
        sounds.append(Sound(name, clip))
    return sounds
