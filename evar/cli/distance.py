"""`evar distance`: how far apart the sounds of two folders are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from evar.cli.terminal import DONE, SOME_FAILED
from evar.cli.words import UsageError, takes_flags
from evar.config.distance_flags import DISTANCE_FLAGS
from evar.config.messages import silence, write_text


@takes_flags(DISTANCE_FLAGS)
def distance(first: str, second: str, encoder: str = "", output: str = "", **flags: Any) -> int:
    """Measure how far apart the sounds of two folders are: the Fréchet audio distance, for any encoder and layer.

    evar distance FOLDER FOLDER --encoder=NAME [-o FILE.json] [flags]

    Examples:
      evar distance recordings/ generated/ --encoder=vggish --window=frame     the published distance: windows of 0.96 s
      evar distance recordings/ generated/ --encoder=cnn14.16k --layers=all -o distances.json

    Flags:
      --encoder=NAME                 whose vectors are compared; evar encoders lists them
      --output=FILE, -o FILE         write every number as JSON; ends in .json

    {flags}

    The table has the distance (squared, smaller is nearer) and the distance that infinitely many files would have: finite
    sets look further apart than they are, by a share that falls as 1 / N, so that a line through random parts of both
    sets leads there. Its standard error is for other files of the same kind. Fewer vectors than dimensions, or fewer than 10
    files in a folder, give a warning. Distances of different layers or encoders cannot be compared with each other.

    Vectors come from the feature store, and go there: with the same --window, no file is encoded twice for the same layers.
    Another --window encodes the files again, since it keeps other vectors; so do further layers, unless it is clip.
    FILE.json holds every number and point.
    Exit status: 0 all files were used, 1 some could not be (they are named), 2 the command line is wrong.
    """
    if not encoder:
        raise UsageError("evar distance needs --encoder=NAME; evar encoders lists them")
    if output and Path(output).suffix.lower() != ".json":
        raise UsageError(f"--output must end in .json, got {output!r}")
    from evar.extraction.distance import frechet_distance, list_sounds, parse_window

    parse_window(flags["window"])
    for folder in (first, second):
        list_sounds(folder)
    from evar.encoders import load_encoder
    from evar.numeric.device import pick_device

    with silence(flags["quiet"]):
        loaded = load_encoder(encoder, flags["weights"], device=pick_device(flags["device"]))
        found = frechet_distance(
            loaded,
            first,
            second,
            flags["layers"] or "default",
            flags["window"],
            store=flags["store"],
            batch_size=flags["batch_size"],
            seed=flags["seed"],
        )
    if loaded.weights_label == "random" and flags["weights"] != "random":
        write_text(f"NOTE: {encoder} has random weights, for it names no checkpoint: its distances mean little")
    write_text(found.describe())
    if output:
        found.save(output)
        write_text(f"written: {output}")
    return SOME_FAILED if found.bad else DONE
