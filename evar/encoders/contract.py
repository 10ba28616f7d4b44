"""The promises of every encoder, as checks that report what is wrong and where to look.

`check_named` runs them all on an encoder that has a YAML, `check_encoder` on any instance. Nobody writes such tests for
the next encoder: `tests/encoders/test_encoder_contract.py` calls this for every name, and so may the author of a new one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from evar.config.encoder import EncoderConfig, load_encoder_config
from evar.config.registry import resolve
from evar.encoders import describe_encoder, load_encoder
from evar.encoders._sockets import watch_sockets
from evar.encoders.base import Encoder
from evar.encoders.features import LayerFeatures
from evar.encoders.findings import Finding, summarise
from evar.encoders.pooling import find_pooling

__all__ = [
    "CHECKS",
    "TOLERANCE",
    "Finding",
    "check_encoder",
    "check_named",
    "relative_l2",
    "summarise",
    "watch_sockets",
]

TOLERANCE = 1e-5  # relative L2 between a clip alone and the same clip in a batch
LONG_SECONDS = 30.0
_SEED = 0


def relative_l2(value: Tensor, reference: Tensor) -> float:
    """L2 norm of the difference over that of the reference (any equal shapes): 0 for equal, inf for NaN or other shapes.

    Example:
        >>> relative_l2(torch.tensor([3.0, 4.5]), torch.tensor([3.0, 4.0]))
        0.1
    """
    if value.shape != reference.shape:
        return float("inf")
    value, reference = value.detach().cpu().double(), reference.detach().cpu().double()
    difference, size = float((value - reference).norm()), float(reference.norm())
    if difference == 0.0:
        return 0.0
    return difference / size if size > 0 and difference < float("inf") else float("inf")


def check_named(name: str, weights: str = "random", **options: Any) -> list[Finding]:
    """Run the whole contract on an encoder that has a YAML.

    Args:
        name: as for `load_encoder`.
        weights: "random" (any machine, offline), or a checkpoint as for `load_encoder`. A network that another runtime
            executes has none that are random: then only what it declares is checked.
        **options: in place of the YAML's, such as `n_blocks=2` for a network of many equal blocks: what the contract
            checks does not depend on their number, and two are fast.

    Returns:
        What is wrong, empty if nothing is.

    Raises:
        ValueError: if there is no such encoder or its YAML cannot be read.
        ImportError: if the encoder needs a package that is not installed.
        OSError: if a checkpoint is missing or cannot be fetched.

    Example:
        >>> check_named("silero_vad")
        []
    """
    config = load_encoder_config(name)
    findings = check_config(config)
    if weights == "random" and getattr(resolve(config.implementation), "runs_file", False):
        if config.weights is not None and config.weights.kind == "file":  # it is here
            return findings + check_encoder(load_encoder(name, **options), lambda: load_encoder(name, **options))
        return findings + [
            Finding("declaration", problem) for problem in check_declaration(describe_encoder(name, **options))
        ]
    if weights == "random":  # published weights may have to be fetched, random ones never
        with watch_sockets() as opened:
            try:
                load_encoder(name, weights, **options)
            except OSError:
                if not opened:
                    raise
            except (ValueError, ImportError):
                raise
            except Exception as error:  # the constructor of somebody's class may raise anything
                problem = (
                    f"building it raises {type(error).__name__}: {error}; see from_config and __init__ of its class"
                )
                return [*findings, Finding("build", problem)]
        if opened:
            problem = f"building {name} with random weights reaches for {opened[0]}; leave fetching to evar.download"
            return [*findings, Finding("no_socket", problem)]
    return findings + check_encoder(
        load_encoder(name, weights, **options), lambda: load_encoder(name, weights, **options)
    )


def check_config(config: EncoderConfig) -> list[Finding]:
    """A YAML's promises: who made the encoder, on what, and under which licence its weights are."""
    texts = {key: getattr(config, key) for key in ("description", "trained_on", "citation")}
    if config.weights is not None:
        texts["weights: licence"] = config.weights.licence
    return [
        Finding("config", f"{config.name}.yaml must say its {key}, got {text!r}; users have to know it")
        for key, text in texts.items()
        if len(text.strip()) < 3
    ]


def check_encoder(encoder: Encoder, rebuild: Callable[[], Encoder] | None = None) -> list[Finding]:
    """Run every check on one encoder.

    Args:
        encoder: in eval mode on the CPU, as `load_encoder` gives it. Its gradients are reset.
        rebuild: builds the same encoder once more, to see that its weights do not depend on chance.

    Returns:
        What is wrong, empty if nothing is. A check that raises an error is a finding with that error's message;
        the same message is given once.

    Example:
        >>> check_encoder(load_encoder("logmel"))
        []
    """
    findings: list[Finding] = []
    with watch_sockets() as opened:
        for check in CHECKS:
            problems: list[str] = []
            try:
                for problem in check(encoder):
                    problems.append(problem)
            except Exception as error:  # somebody's encoder may raise anything; the check reports it
                problems.append(str(error) or type(error).__name__)
            known = {finding.problem for finding in findings}
            findings += [
                Finding(check.__name__.removeprefix("check_"), problem)
                for problem in dict.fromkeys(problems)
                if problem not in known
            ]
        if rebuild is not None:
            findings += [Finding("seeded", problem) for problem in compare_weights(encoder, rebuild())]
    if opened:
        findings.append(Finding("no_socket", f"encoding reaches for {opened[0]}; leave fetching to evar.download"))
    return findings


def check_declaration(encoder: Encoder) -> Iterator[str]:
    """Check that the declarations of the class make sense.

    Example:
        >>> list(check_declaration(load_encoder("silero_vad", "random")))
        []
    """
    names = [info.name for info in encoder.layer_infos]
    if not names or len(set(names)) != len(names):
        yield f"layers must have unique names, and at least one, got {names}"
    if not encoder.default_layers:
        yield "default_layers must name at least one layer; take the one that the model's paper uses frozen"
    for name in encoder.default_layers:
        if name not in names:
            yield f"default_layers names {name!r}, but the layers are {names}"
    for info in encoder.layer_infos:
        try:
            find_pooling(info.pooling)
        except ValueError as error:
            yield f"layer {info.name} has no known pooling {info.pooling!r}: {error}"
    if encoder.sample_rate < 1 or encoder.min_samples < 1:
        yield (
            f"sample_rate and min_samples must be at least 1, got {encoder.sample_rate} Hz and {encoder.min_samples}; "
            "neither is in kHz or seconds"
        )
    if encoder.training:
        yield "the encoder is in train mode; call eval() before it is used frozen"


def check_clips(encoder: Encoder) -> Iterator[str]:
    """One sample, silence and half a minute are encoded: finite, float32, as many frames as `valid_frames` says.

    Example:
        >>> list(check_clips(load_encoder("silero_vad", "random")))
        []
    """
    rate = encoder.sample_rate
    noise = _noise(1, int(LONG_SECONDS * rate))
    short = max(encoder.min_samples, rate)
    kinds = {
        "a clip of one sample": noise[:, :1],
        "a second of silence": torch.zeros(1, rate),
        "a second of noise": noise[:, :short],
        "half a minute of noise": noise,
    }
    encoded = {}
    for kind, waveform in kinds.items():
        encoded[kind] = features = _encode(encoder, waveform)
        for name, value in features.items():
            if not bool(torch.isfinite(value).all()):
                yield f"layer {name} of {kind} is not finite; look for a logarithm or division without a floor"
            if value.dtype != torch.float32:
                yield f"layer {name} must be float32, got {value.dtype}"
            frames = int(features.frames[name][0])
            if value.shape[1] != frames:
                yield (
                    f"layer {name} of {kind} has {value.shape[1]} frames, but valid_frames says {frames}; "
                    "they must agree for a clip encoded alone"
                )
    yield from _hops(encoder, encoded["half a minute of noise"], encoded["a second of noise"], noise.shape[1] - short)


def _hops(encoder: Encoder, long: LayerFeatures, short: LayerFeatures, n_more: int) -> Iterator[str]:
    """Each layer's hop is the rate at which frames come with more samples (within two frames, for their edges)."""
    for info in encoder.layer_infos:
        more = long[info.name].shape[1] - short[info.name].shape[1]
        if info.hop == 0 and (more != 0 or short[info.name].shape[1] != 1):
            yield f"layer {info.name} declares hop 0, one frame per clip, but gives {long[info.name].shape[1]} frames"
        if info.hop > 0 and abs(more * info.hop - n_more) > 2 * info.hop:
            meant = f"about {n_more / more:.0f}" if more > 0 else "0"
            yield (
                f"layer {info.name} declares hop {info.hop}, but {n_more} more samples give {more} more frames; "
                f"its hop is {meant} samples at {encoder.sample_rate} Hz"
            )


def check_repeatable(encoder: Encoder) -> Iterator[str]:
    """Check that a clip gives the same numbers again after other clips were encoded, and that it is not changed itself.

    Example:
        >>> list(check_repeatable(load_encoder("silero_vad", "random")))
        []
    """
    noise = _noise(2, max(encoder.min_samples, encoder.sample_rate))
    clip, other = noise[:1].clone(), noise[1:].clone()
    first = _encode(encoder, clip)
    # Copies: an encoder may hand out a buffer that its next call overwrites.
    kept = {name: value.clone() for name, value in first.items()}
    _encode(encoder, other)
    for name, value in kept.items():
        if not torch.equal(first[name], value):
            yield f"layer {name} of an earlier clip was overwritten by a later call; return a new tensor"
    again = _encode(encoder, clip)
    for name, value in kept.items():
        if not torch.equal(again[name], value):
            yield f"layer {name} differs between two calls on the same clip; look for dropout, dither or a kept state"
    if not torch.equal(clip, noise[:1]):
        yield "encode changed the caller's waveform; do not write into it (mul_, sub_, +=)"


def check_gradients(encoder: Encoder) -> Iterator[str]:
    """Every trainable parameter moves some layer."""
    trainable = {name: value for name, value in encoder.named_parameters() if value.requires_grad}
    if not trainable:
        return
    encoder.zero_grad(set_to_none=True)
    features = encoder.encode(_noise(2, max(encoder.min_samples, encoder.sample_rate)))
    attached = [value for value in features.values() if value.requires_grad]
    if not attached:
        yield "no layer carries a gradient; is forward under no_grad, or is a result detached?"
        return
    # Random weights, because a plain sum is constant behind a softmax or a layer norm.
    generator = torch.Generator().manual_seed(_SEED)
    weighted = [(value * torch.randn(value.shape, generator=generator).to(value)).sum() for value in attached]
    torch.autograd.backward(weighted)
    for name, value in trainable.items():
        if value.grad is None or not bool(value.grad.any()):
            yield f"no gradient reaches {name}; drop it, make it a buffer, or let a layer depend on it"
        elif not bool(torch.isfinite(value.grad).all()):
            yield f"the gradient of {name} is not finite; look for a square root or division without a floor"
    encoder.zero_grad(set_to_none=True)


def check_batch_invariance(encoder: Encoder) -> Iterator[str]:
    """A clip's valid frames are the same alone and in a batch; clips of equal length only, where not declared so.

    Example:
        >>> list(check_batch_invariance(load_encoder("silero_vad", "random")))
        []
    """
    rate, least = encoder.sample_rate, encoder.min_samples
    lengths = [least + int(seconds * rate) for seconds in (2.9, 0.3, 1.37)] + [1]
    if not encoder.batch_invariant:
        lengths = lengths[1:2] * 2
    # Noise fills the whole batch, so that samples beyond a clip's length would have an effect.
    noise, ends = _noise(len(lengths), max(lengths)), torch.tensor(lengths)
    together = _encode(encoder, noise, ends)
    alone = [_encode(encoder, noise[index : index + 1, :length]) for index, length in enumerate(lengths)]
    different = list(_different(together, alone, lengths))
    if different and encoder.batch_invariant:
        silent = noise.masked_fill(torch.arange(noise.shape[1])[None, :] >= ends[:, None], 0.0)
        if any(_different(_encode(encoder, silent, ends), alone, lengths)):
            hint = "mask the samples beyond a clip's length, or declare batch_invariant = False"
        else:
            hint = "samples beyond its length are heard: do not replace encode, which zeroes them"
    else:
        hint = "even clips of equal length change each other: is batch normalisation in train mode?"
    yield from (f"{problem}; {hint}" for problem in different)


def _different(together: LayerFeatures, alone: list[LayerFeatures], lengths: list[int]) -> Iterator[str]:
    """Report how clips of a batch differ from the same clips alone."""
    for index, (clip, length) in enumerate(zip(alone, lengths, strict=True)):
        for name, reference in clip.items():
            n_alone, n_frames = int(clip.frames[name][0]), int(together.frames[name][index])
            if n_frames != n_alone:
                yield f"layer {name} of {length} samples has {n_frames} valid frames in a batch, {n_alone} alone"
                continue
            error = relative_l2(together[name][index, :n_frames], reference[0, :n_alone])
            if error > TOLERANCE:
                yield f"layer {name} of {length} samples differs by {error:.1e} (relative L2) between a batch and alone"


def check_input_statistics(encoder: Encoder) -> Iterator[str]:
    """Check the mean and the standard deviation of the input, if it has them: clips give them, and they have an effect.

    Example:
        >>> list(check_input_statistics(load_encoder("silero_vad", "random")))
        []
    """
    if encoder.norm_stats is None:
        return
    known = ("constants", "train")
    if encoder.default_norm_stats not in known:
        yield f"default_norm_stats must be one of {known}, got {encoder.default_norm_stats!r}; what does its paper do?"
    short, long = encoder.min_samples + encoder.sample_rate // 3, encoder.min_samples + encoder.sample_rate
    noise = _noise(2, long)
    with torch.no_grad():
        together = encoder.input_moments(noise, torch.tensor([long, short]))  # (batch, count/sum/squares)
        alone = torch.cat([encoder.input_moments(noise[:1]), encoder.input_moments(noise[1:, :short])])
        shown = encoder.frontend(noise[:1])
    if not torch.allclose(together, alone, rtol=TOLERANCE):
        yield (
            f"the count, sum and sum of squares of a clip's input are {alone[1].tolist()} alone but "
            f"{together[1].tolist()} in a batch; network_input_frames must count the clip's own frames only"
        )
    mean, std = encoder.norm_stats
    with encoder.normalising_by((mean + 1.0, std * 2.0)), torch.no_grad():
        if not torch.equal(encoder.frontend(noise[:1]), shown):
            yield "network_input changes with norm_stats; return the input before normalisation"
        other = encoder.encode(noise[:1])
    before = _encode(encoder, noise[:1])
    if all(torch.equal(other[name], value) for name, value in before.items()):
        yield "norm_stats change no layer; forward must normalise by self.norm_stats, or the class must have none"


def check_extras(encoder: Encoder) -> Iterator[str]:
    """Check that a front-end and a classifier's head, if there are any, give finite numbers for every clip."""
    n_samples = max(encoder.min_samples, encoder.sample_rate)
    for name, call in (("frontend", encoder.frontend), ("outputs", encoder.outputs)):
        try:
            with torch.no_grad():
                value = call(_noise(2, n_samples))
        except (NotImplementedError, ValueError):  # the encoder has none
            continue
        if not isinstance(value, Tensor) or value.dim() < 2 or len(value) != 2:
            kind = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            yield f"{name} of 2 clips must be a tensor of 2 rows, got {kind}"
        elif not bool(torch.isfinite(value).all()):
            yield f"{name} of a second of noise is not finite; look for a logarithm or division without a floor"


CHECKS: tuple[Callable[[Encoder], Iterator[str]], ...] = (
    check_declaration,
    check_clips,
    check_repeatable,
    check_gradients,
    check_batch_invariance,
    check_input_statistics,
    check_extras,
)


def compare_weights(encoder: Encoder, other: Encoder) -> Iterator[str]:
    """Two encoders of one recipe hold the same numbers."""
    first, second = encoder.state_dict(), other.state_dict()
    for name in sorted(first.keys() | second.keys()):
        if name not in first or name not in second or not torch.equal(first[name].cpu(), second[name].cpu()):
            yield f"{name} differs when built twice; draw random weights from torch's own generator, which is seeded"


def _noise(n_clips: int, n_samples: int) -> Tensor:
    """(batch, samples), the same at every call: noise with a slow swell, so that no two seconds are alike."""
    noise = torch.randn(n_clips, n_samples, generator=torch.Generator().manual_seed(_SEED))
    swell = 0.05 + 0.1 * torch.linspace(0.0, 9.0, n_samples).sin().square()
    return (noise * swell).clamp(-1.0, 1.0)


def _encode(encoder: Encoder, waveform: Tensor, lengths: Tensor | None = None) -> LayerFeatures:
    with torch.no_grad():
        return encoder.encode(waveform, lengths)
