"""A certificate for any encoder, or for another toolkit's wrapper of one: what matters when its vectors are compared.

Wrappers behind public tables were found to feed the wrong sample rate, cut clips silently, read another tensor than they
say, or return other vectors if a clip shares its batch. `measure_wrapper` tries these things on noise, and says what it
measured.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from evar.encoders.base import Encoder
from evar.encoders.contract import TOLERANCE, relative_l2
from evar.encoders.pooling import pool

#: seconds of the clip in which a change must be heard, and of the change: second 25 of 30
_LONG, _CHANGED, _CHANGE_SECONDS = 30.0, 25.0, 0.5
#: a relative change of the vector below this counts as none
_HEARD = 1e-6
#: seconds of the clips that are timed
_TIMED_SECONDS = 10.0


@dataclass(frozen=True)
class Answer:
    """One line of a certificate.

    Attributes:
        name: of the question, such as "nothing_cut".
        question: in words.
        answer: in words, with what was measured.
        is_good: True, False, or None for a fact that is neither good nor bad.
        number: what was measured; None if it is no number.
    """

    name: str
    question: str
    answer: str
    is_good: bool | None = None
    number: float | None = None


@dataclass(frozen=True)
class Certificate:
    """What was measured on one encoder.

    Attributes:
        encoder: its name.
        weights: where its weights came from; "random" for an untrained network.
        answers: in the order of the questions.
    """

    encoder: str
    weights: str
    answers: tuple[Answer, ...]

    @property
    def n_good(self) -> int:
        """Questions whose answer is good."""
        return sum(answer.is_good is True for answer in self.answers)

    @property
    def n_judged(self) -> int:
        """Questions whose answer is good or bad."""
        return sum(answer.is_good is not None for answer in self.answers)


def measure_wrapper(encoder: Encoder) -> Certificate:
    """Try on noise what people rely on when they compare an encoder's vectors.

    Args:
        encoder: in eval mode, as `load_encoder` gives it. The vector is that of its default layers, pooled over time.

    Returns:
        The certificate. An error that the encoder raises is a bad answer with that error's message.

    Example:
        >>> from evar.encoders import load_encoder
        >>> found = measure_wrapper(load_encoder("logmel"))
        >>> found.n_good, found.n_judged
        (5, 5)
    """
    answers = []
    for question in _QUESTIONS:
        try:
            answers += list(question(encoder))
        except Exception as error:  # whatever somebody's wrapper raises is what this is here to report
            name = question.__name__.removeprefix("_ask_")
            said = f"it raises {type(error).__name__}: {' '.join(str(error).split())[:200]}"
            answers.append(Answer(name, (question.__doc__ or "").strip().rstrip("."), said, is_good=False))
    return Certificate(encoder.name, encoder.weights_label, tuple(answers))


def _ask_what_is_read(encoder: Encoder) -> Iterator[Answer]:
    """Which layer is read, and what is fed to it."""
    layers = {layer.name: layer for layer in encoder.layer_infos}
    read = " + ".join(f"{name} ({layers[name].width} wide, {layers[name].pooling})" for name in encoder.default_layers)
    yield Answer("layer", "Which layer is read, and how is it pooled over time?", read)
    yield Answer(
        "sample_rate",
        "Which sample rate is fed?",
        f"{encoder.sample_rate} Hz, mono; sounds of other rates are resampled first",
        number=float(encoder.sample_rate),
    )


def _ask_repeatable(encoder: Encoder) -> Iterator[Answer]:
    """Does the same clip give the same vector twice?"""
    clip = _make_noise(encoder, 2.0)
    error = relative_l2(_embed(encoder, clip), _embed(encoder, clip))
    yield Answer(
        "same_twice",
        "Does the same clip give the same vector twice?",
        "yes, bit for bit" if error == 0 else f"no: the two differ by {error:.1e} (relative L2)",
        error == 0,
        error,
    )


def _ask_batch(encoder: Encoder) -> Iterator[Answer]:
    """Does a clip give the same vector alone and in a batch?"""
    question = "Does a clip give the same vector alone and in a batch?"
    short, long = _make_noise(encoder, 1.3), _make_noise(encoder, 3.1)
    alone = _embed(encoder, short)
    if encoder.batch_invariant:
        batch = torch.zeros(2, long.shape[1])
        batch[0, : short.shape[1]], batch[1] = short[0], long[0]
        together = _embed(encoder, batch, torch.tensor([short.shape[1], long.shape[1]]))[:1]
        how = "beside a longer clip"
    else:
        together = _embed(encoder, torch.cat([short, long[:, : short.shape[1]]]))[:1]
        how = "beside a clip of its length; it takes no others"
    error = relative_l2(together, alone)
    is_good = error <= TOLERANCE
    said = f"yes, {how}: they differ by {error:.1e}" if is_good else f"no, {how}: the two differ by {error:.1e}"
    yield Answer("same_in_batch", question, f"{said} (relative L2)", is_good, error)


def _ask_cut(encoder: Encoder) -> Iterator[Answer]:
    """Is a change at second 25 of a clip of 30 seconds heard?"""
    clip = _make_noise(encoder, _LONG)
    changed = clip.clone()
    first = round(_CHANGED * encoder.sample_rate)
    last = first + round(_CHANGE_SECONDS * encoder.sample_rate)
    changed[:, first:last] = clip[:, first:last].flip(1) * 3.0
    moved = relative_l2(_embed(encoder, changed), _embed(encoder, clip))
    is_heard = moved > _HEARD
    yield Answer(
        "nothing_cut",
        "Is a change at second 25 of a clip of 30 seconds heard?",
        f"yes, the vector moves by {moved:.1e}" if is_heard else "no: the end of long clips is cut silently",
        is_heard,
        moved,
    )


def _ask_padding(encoder: Encoder) -> Iterator[Answer]:
    """How far do three seconds of zeros after a clip of one second move its vector?"""
    clip = _make_noise(encoder, 1.0)
    padded = torch.nn.functional.pad(clip, (0, 3 * encoder.sample_rate))
    moved = relative_l2(_embed(encoder, padded), _embed(encoder, clip))
    yield Answer(
        "padding",
        "How far do three seconds of zeros after a clip of one second move its vector?",
        f"by {moved:.1e} (relative L2); so clips should not be padded before they are given to it"
        if moved > 0.01
        else f"by {moved:.1e} (relative L2)",
        number=moved,
    )


def _ask_silence(encoder: Encoder) -> Iterator[Answer]:
    """Does silence give finite numbers?"""
    n_bad = int((~torch.isfinite(_embed(encoder, torch.zeros(1, 2 * encoder.sample_rate)))).sum())
    said = "yes" if not n_bad else f"no: {n_bad} numbers of its vector are infinite or none"
    yield Answer("silence", "Does silence give finite numbers?", said, not n_bad, float(n_bad))


def _ask_input(encoder: Encoder) -> Iterator[Answer]:
    """Does the encoder leave the caller's samples as they are?"""
    clip = _make_noise(encoder, 1.0)
    kept = clip.clone()
    _embed(encoder, clip)
    is_good = torch.equal(clip, kept)
    yield Answer("input_kept", "Are the caller's samples left as they are?", "yes" if is_good else "no", is_good)


def _ask_speed(encoder: Encoder) -> Iterator[Answer]:
    """How long does a second of audio take?"""
    clip = _make_noise(encoder, _TIMED_SECONDS)
    _embed(encoder, clip)  # the first call makes tables
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        _embed(encoder, clip)
        seconds.append(time.perf_counter() - start)
    cost = min(seconds) / _TIMED_SECONDS
    device = next((parameter.device.type for parameter in encoder.parameters()), "cpu")
    where = f"on {device}" + (f" with {torch.get_num_threads()} threads" if device == "cpu" else "")
    yield Answer("speed", "How long does a second of audio take?", f"{cost:.3g} s {where}", number=cost)


_QUESTIONS: tuple[Callable[[Encoder], Iterator[Answer]], ...] = (
    _ask_what_is_read,
    _ask_repeatable,
    _ask_batch,
    _ask_cut,
    _ask_padding,
    _ask_silence,
    _ask_input,
    _ask_speed,
)


def _make_noise(encoder: Encoder, seconds: float) -> Tensor:
    """(1, samples) of noise, the same for every call with that length."""
    n_samples = max(encoder.min_samples, round(seconds * encoder.sample_rate))
    return 0.1 * torch.randn(1, n_samples, generator=torch.Generator().manual_seed(0))


def _embed(encoder: Encoder, waveform: Tensor, lengths: Tensor | None = None) -> Tensor:
    """(batch, width) vectors of the default layers, side by side."""
    with torch.no_grad():
        features = encoder.encode(waveform, lengths)
        layers = {layer.name: layer for layer in encoder.layer_infos}
        parts = [pool(features[name], features.frames[name], layers[name].pooling) for name in encoder.default_layers]
    return torch.cat([part.detach().cpu().clone() for part in parts], dim=1)
