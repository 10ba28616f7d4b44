"""The command that writes an encoder as a file for other programs."""

from __future__ import annotations

from evar.cli.terminal import DONE
from evar.cli.words import UsageError, decimal, truth
from evar.config.messages import write_text


def export(
    encoder: str = "",
    output: str = "",
    layers: str = "",
    pooled: bool = False,
    seconds: str = "",
    weights: str = "",
    head: str = "",
    round: str = "",
) -> int:
    """Write an encoder as an ONNX or TorchScript file: waveform in, layers out, with the same numbers.

    evar export [ENCODER] --output=FILE [flags]          (-o FILE is short for --output=FILE)

    FILE ends in .onnx (a YAML is written beside it, with which "onnx:FILE" is an encoder again) or in .pt (TorchScript). The
    file is run before it is kept, at several batch sizes and lengths, and compared with the encoder itself; an encoder of
    which no file gives the same numbers is refused with the reason.

    Examples:
      evar export crepe.tiny -o crepe.onnx                      frames of the default layer
      evar export silero_vad --layers=all -o vad.pt
      evar export aisfx --pooled -o aisfx.onnx                  one vector a clip
      evar export --head=words.safetensors -o words.onnx        a classifier of evar train: probabilities of its classes
    then
      evar embed onnx:crepe.onnx recordings/ -o features.parquet

    Flags:
      --output=FILE, -o FILE           ends in .onnx (needs pip install "evar-audio[onnx]") or .pt
      --layers=default|all|NAME,NAME   one output each; a number is a position: 0 the first layer, -1 the last
                                                                                            (default: default)
      --pooled                         one vector a clip, the pooled layers side by side, in place of frames
      --seconds=N                      of the sound that the network is traced with; if it takes one length only, this one
                                                                                            (default: 5)
      --head=FILE.safetensors          a classifier file; its encoder and layers are exported, and its probabilities come
                                       out; linear heads only (linear, multilabel, ridge), others are refused
      --round=NAME                     of a classifier with several heads, the one that predicts   (default: their mean)
      --weights=PATH|URL|hf:ORG/NAME|random   another checkpoint

    docs/exporting_networks.md says which encoders take any batch and any length.
    """
    from evar.tracing import export_network

    if not output:
        raise UsageError("evar export needs --output=FILE (or -o FILE), which ends in .onnx or .pt")
    if not encoder and not head:
        raise UsageError("evar export needs ENCODER, or --head=FILE.safetensors")
    done = export_network(
        encoder or None,
        output,
        layers=layers or None,
        pooled=truth(pooled, "pooled"),
        seconds=decimal(seconds, "seconds"),
        weights=weights or None,
        head=head or None,
        round=round,
    )
    check = done.check
    length = "of any length" if check.any_length else f"of {check.n_samples} samples, no others"
    write_text("written: " + ", ".join(str(path) for path in done.files))
    write_text(
        f"input: waveform, {'any number of clips' if check.any_batch else 'one clip'} {length}, float32 at "
        f"{done.sample_rate} Hz\noutput: " + ", ".join(f"{name} ({width} wide)" for name, width in done.outputs.items())
    )
    write_text(f"checked: it differs from the encoder by {check.error:.1e} of the largest number at most")
    return DONE
