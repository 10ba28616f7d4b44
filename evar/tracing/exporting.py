"""Write an encoder as an ONNX or TorchScript file that gives the same numbers, or say why that is not possible."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from evar.encoders.layer_choice import choose_layers
from evar.storage.atomic import write_atomic
from evar.tracing.checking import TOLERANCE, Check, Runner, check_batch, check_lengths, measure_error
from evar.tracing.head import ClassifierHead, load_head
from evar.tracing.metadata import add_metadata, collect_metadata, format_settings
from evar.tracing.network import WaveformNetwork
from evar.tracing.operations import OPSET, rewritten_operations
from evar.tracing.running import open_onnx, open_torchscript

if TYPE_CHECKING:
    from evar.encoders.base import Encoder

#: seconds of the sound that a network is traced with, unless the user says otherwise
DEFAULT_SECONDS = 5.0
FORMATS = (".onnx", ".pt")
#: makes the bytes of a file: of a network, clips and samples to trace with, and whether it takes any batch and any length
Writer = Callable[[WaveformNetwork, int, int, bool, bool], bytes]


@dataclass(frozen=True)
class Exported:
    """A file that was written.

    Attributes:
        files: the network, and for ONNX the YAML beside it.
        outputs: names of the outputs -> their widths.
        check: what the file was found to be able to do.
        sample_rate: Hz of the input.
    """

    files: tuple[Path, ...]
    outputs: dict[str, int]
    check: Check
    sample_rate: int


def export_network(
    encoder: Encoder | str | None,
    output: str | os.PathLike[str],
    *,
    layers: str | None = None,
    pooled: bool = False,
    seconds: float | None = None,
    weights: str | None = None,
    head: str | None = None,
    round: str = "",
) -> Exported:
    """Write an encoder as a file for other programs: waveform in, frames of layers or one vector a clip out.

    The file is run before it is kept, at several batch sizes and lengths, and compared with the encoder itself.

    Args:
        encoder: name, or one that is loaded; None takes that of the head.
        output: path that ends in .onnx (a YAML is written beside it, so that "onnx:FILE" reads it back) or .pt
            (TorchScript).
        layers: names or positions, separated by commas, "all", or None for the default layers.
        pooled: one vector a clip, the pooled layers side by side, in place of frames.
        seconds: of the sound that the network is traced with: the one length that a network of fixed length then takes.
            None stands for 5 seconds.
        weights: of an encoder that is given by name: another checkpoint, or "random".
        head: path of a classifier file (`evar train`): its encoder and layers are exported, with the probabilities of its
            classes (or its number) as the output.
        round: of a head that has several, the one that predicts; "" averages all.

    Returns:
        Files, outputs and what was checked.

    Raises:
        ValueError: if the encoder cannot be exported with the same numbers; the reason is named.
        ImportError: if a package is missing.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     done = export_network("logmel", f"{folder}/logmel.pt", pooled=True, seconds=1)
        >>> done.outputs, done.check.any_batch, done.check.any_length
        ({'embedding': 128}, True, True)
    """
    path = Path(output)
    if path.suffix not in FORMATS:
        raise ValueError(f"the file must end in {' or '.join(FORMATS)}, got {path.name!r}")
    if seconds is not None and not 0 < seconds <= 600:
        raise ValueError(f"--seconds must be above 0 and at most 600, got {seconds:g}")
    network, of_head = _make_network(encoder, layers, pooled, weights, head, round)
    loaded = network.encoder
    asked = seconds or (of_head.record.clip.seconds if of_head else None) or DEFAULT_SECONDS
    n_samples = max(loaded.min_samples, int(asked * loaded.sample_rate + 0.5))
    with _without_gradients(network):
        files, check = _write_files(network, path, n_samples, of_head.facts if of_head else {})
    return Exported(files, network.widths, check, loaded.sample_rate)


def _write_files(
    network: WaveformNetwork, path: Path, n_samples: int, more: Mapping[str, Any]
) -> tuple[tuple[Path, ...], Check]:
    """Write the network in the format of the path, traced with `n_samples`; `more` are facts about a head.

    Returns:
        The files that were written, and what the network was found to be able to do.
    """
    if path.suffix == ".onnx":
        data, check = _find_widest(network, n_samples, write_onnx, open_onnx)
        facts = {**collect_metadata(network, check), **more}
        settings = path.with_suffix(".yaml")
        write_atomic(path, add_metadata(data, facts))
        write_atomic(settings, format_settings(network, check, facts).encode("utf-8"))
        return (path, settings), check
    data, check = _find_widest(network, n_samples, partial(write_torchscript, more=more), open_torchscript)
    write_atomic(path, data)
    return (path,), check


def _make_network(
    encoder: Encoder | str | None, layers: str | None, pooled: bool, weights: str | None, head: str | None, round: str
) -> tuple[WaveformNetwork, ClassifierHead | None]:
    """Load what is to be exported; arguments as for `export_network`."""
    if head is not None:
        if layers or pooled:
            raise ValueError("a head says itself which pooled layers it reads; leave --layers and --pooled out")
        of_head = load_head(head, round)
        loaded = _load_encoder_of_head(of_head, head, encoder, weights)
        feature = of_head.record.feature
        of_layers = WaveformNetwork(loaded.cpu().eval(), feature.layers, head=of_head.network, fusion=feature.fusion)
        return of_layers.eval(), of_head
    if encoder is None:
        raise ValueError("evar export needs an encoder, or --head with a classifier file")
    if isinstance(encoder, str):
        from evar.encoders import load_encoder

        encoder = load_encoder(encoder, weights or None)
    if getattr(encoder, "runs_file", False):
        raise ValueError(f"{encoder.name} is a file of another runtime already, and cannot be exported")
    return WaveformNetwork(encoder.cpu().eval(), choose_layers(encoder, layers or None), pooled=pooled).eval(), None


def _load_encoder_of_head(
    head: ClassifierHead, path: str, encoder: Encoder | str | None, weights: str | None
) -> Encoder:
    """Load the encoder that a classifier was trained on, with its input statistics, and check that it is the same."""
    from evar.applying.classifier import Classifier

    facts = head.record.encoder
    name = encoder if isinstance(encoder, str) or encoder is None else encoder.name
    if name not in (None, facts.name, facts.request):
        raise ValueError(f"{path} was trained on {facts.name}, got {name}; leave the encoder out, or name that one")
    loaded = Classifier(path, weights, "cpu").encoder
    if head.norm_stats is not None:
        loaded.norm_stats = head.norm_stats
    return loaded


@contextmanager
def _without_gradients(network: WaveformNetwork) -> Iterator[None]:
    """Trace without gradients, and without the tracer's warnings: what it warns of is checked afterwards."""
    needing = [one for one in network.parameters() if one.requires_grad]
    for one in needing:
        one.requires_grad_(False)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for one in needing:
            one.requires_grad_(True)


def _find_widest(
    network: WaveformNetwork, n_samples: int, write: Writer, open_file: Callable[[bytes], Runner]
) -> tuple[bytes, Check]:
    """Write the file that takes the most: any batch before one clip, any length before one.

    Raises:
        ValueError: if not even a file for one clip of one length gives the encoder's numbers.
    """
    reason = ""
    for n_clips in (2, 1):
        try:
            data = write(network, n_clips, n_samples, n_clips > 1, True)
            run = open_file(data)
            error, reason = measure_error(network, run, n_clips, n_samples)
            if error > TOLERANCE:
                continue
            if n_clips > 1:
                of_batch, reason = check_batch(network, run, n_samples)
                if of_batch > TOLERANCE:
                    continue
                error = max(error, of_batch)
            of_lengths, _ = check_lengths(network, run, n_samples, n_clips)
            if of_lengths <= TOLERANCE:
                return data, Check(n_clips > 1, True, n_samples, max(error, of_lengths))
            data = write(network, n_clips, n_samples, n_clips > 1, False)
            return data, Check(n_clips > 1, False, n_samples, error)
        except (ImportError, KeyboardInterrupt):
            raise
        except Exception as problem:  # of the tracer, the exporter or the runtime
            reason = _shorten(problem)
    raise ValueError(f"{network.encoder.name} cannot be exported with the same numbers: {reason}")


def _shorten(problem: Exception) -> str:
    """Return the part of an exporter's message that a reader can use, without the graph that it prints."""
    lines = [line.strip() for line in str(problem).splitlines() if line.strip() and not line.lstrip().startswith("%")]
    text = " ".join(lines[:1]) or type(problem).__name__
    return text[:240]


def write_onnx(network: WaveformNetwork, n_clips: int, n_samples: int, any_batch: bool, any_length: bool) -> bytes:
    """Trace a network and write it as ONNX.

    Args:
        network: in evaluation mode.
        n_clips, n_samples: number and length of the clips to trace with.
        any_batch, any_length: whether the file declares that it takes any number of clips, and any length.

    Returns:
        Bytes of the file.
    """
    first = {0: "batch"} if any_batch else {}
    axes = {"waveform": {**first, **({1: "samples"} if any_length else {})}}
    for name in network.output_names:
        axes[name] = {**first, **({1: "time"} if any_length and not network.pooled else {})}
    buffer = io.BytesIO()
    with rewritten_operations(), _without_graph_log():
        torch.onnx.export(
            network,
            (torch.randn(n_clips, n_samples, generator=torch.Generator().manual_seed(0)) * 0.1,),
            buffer,  # type: ignore[arg-type]  # the exporter by traces takes open files
            dynamo=False,
            opset_version=OPSET,
            input_names=["waveform"],
            output_names=list(network.output_names),
            dynamic_axes={name: one for name, one in axes.items() if one},
        )
    return buffer.getvalue()


@contextmanager
def _without_graph_log() -> Iterator[None]:
    """Keep a failed export from printing its whole graph, where this torch lets itself be told so."""
    switch = getattr(torch._C, "_jit_set_onnx_log_enabled", None)
    if switch is not None:
        switch(False)
    try:
        yield
    finally:
        if switch is not None:
            switch(True)


def write_torchscript(
    network: WaveformNetwork,
    n_clips: int,
    n_samples: int,
    any_batch: bool,
    any_length: bool,
    more: Mapping[str, Any] | None = None,
) -> bytes:
    """Trace a network and write it as TorchScript; the facts about it are in the archive as `evar.json`.

    Args:
        network: in evaluation mode.
        n_clips, n_samples: number and length of the clips to trace with.
        any_batch, any_length: what the facts say: whether the file takes any number of clips, and any length.
        more: further facts, such as those about a classifier.

    Returns:
        Bytes of the file.
    """
    import json

    example = torch.randn(n_clips, n_samples, generator=torch.Generator().manual_seed(0)) * 0.1
    traced = torch.jit.trace(network, example, check_trace=False)
    facts = {**collect_metadata(network, Check(any_batch, any_length, n_samples, 0.0)), **(more or {})}
    buffer = io.BytesIO()
    torch.jit.save(traced, buffer, _extra_files={"evar.json": json.dumps(facts, sort_keys=True)})
    return buffer.getvalue()
