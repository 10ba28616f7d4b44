"""Commands that make features: new encoders from some layers, files of vectors, and a list of the feature store."""

from __future__ import annotations

from pathlib import Path

from evar.cli.terminal import DONE, SOME_FAILED, columns
from evar.cli.words import UsageError, decimal, statistics, truth, whole
from evar.config.messages import write_text
from evar.config.registry import near_miss


def fuse(encoder: str, layers: str, name: str = "", weights: str = "") -> int:
    """Make an encoder of some layers of another, side by side; every command takes its name from then on.

    evar fuse ENCODER LAYER,LAYER --name=NAME [--weights=PATH]

    --weights=PATH is a checkpoint of your own, which the new encoder then always holds.

    Example:
      evar fuse cnn14.16k block3,block6 --name=my_general
    then
      evar lineval my_general,cnn14.16k esc10,fsdd_digit
      evar layers my_general

    It writes NAME.yaml to your own configuration folder ($EVAR_CONFIG, else the user's); delete that to undo it. To let
    the data choose the layers: evar lineval ENCODER TASKS --fusion=search --export=NAME.
    """
    from evar.encoders.variants import write_variant

    if not name:
        raise UsageError("evar fuse needs --name=NAME, the name of the new encoder")
    path = write_variant(
        encoder, [layer.strip() for layer in layers.split(",") if layer.strip()], name, weights=_find_file(weights)
    )
    write_text(f"written: {path}\nnext: evar layers {name}, evar lineval {name} TASKS")
    return DONE


def _find_file(weights: str) -> str | None:
    if weights and not Path(weights).expanduser().is_file():
        raise UsageError(f"--weights must be the path of a checkpoint here, got {weights!r}, which is no file")
    return str(Path(weights).expanduser()) if weights else None


def embed(
    encoder: str,
    *source: str,
    output: str = "",
    layers: str = "",
    fusion: str = "",
    frames: bool = False,
    weights: str = "",
    norm_stats: str = "",
    pooling: str = "",
    data_root: str = "",
    device: str = "auto",
    batch_size: str = "",
    skip_bad: bool = False,
    window: str = "",
    hop: str = "",
) -> int:
    """Write the vectors of any audio to a file (parquet, npz, h5), to be used anywhere else: take the feature home.

    evar embed ENCODER SOURCE... --output=FILE [flags]            (-o FILE is short for --output=FILE)

    SOURCE is an audio file, a folder (searched to the bottom, files by name, hidden ones left out) or a CSV with a column
    `path` and, where rows are parts of files, `start` and `end` in seconds. A CSV's other columns, such as labels, are
    carried into the output as texts. Its relative paths begin at the CSV's folder, or at --data_root, and may not leave it
    ("..", "\\"); absolute paths are taken as they are.

    Examples:
      evar embed cnn14.16k recordings/ -o features.parquet
      evar embed crepe.tiny clips.csv --data_root=/data --layers=conv3,conv5 -o features.npz
      evar embed ast one.wav two.flac --layers=block5,block12 --fusion=concat -o features.h5
      evar embed wav2vec2.base speech/ --frames -o frames.parquet
      evar embed birdnet field/ --window=3 --hop=1.5 -o windows.parquet       recordings of any length

    Flags:
      --output=FILE, -o FILE           ends in .parquet (needs pyarrow), .npz, or .h5 (needs h5py)
      --layers=default|all|NAME,NAME   one column each; several default layers are concatenated   (default: default)
                                       a number is a position: 0 the first layer, -1 the last
      --fusion=concat|average          make one column of the layers instead
      --frames                         a row a frame: `time` is when its hop begins, `hop` how long it is, in seconds;
                                       the layers must share one hop
      --window=SECONDS --hop=SECONDS   a row for each window: they begin at 0, hop, 2 hop, ... (default of hop: the window).
                                       The last one ends with its recording; it is left out if it is shorter than half a
                                       window. Without --window, files of more than half an hour are refused
      --weights=PATH|URL|hf:ORG/NAME|random   another checkpoint
      --norm_stats=default|MEAN,STD    mean and std of the log-mel, for encoders that normalise by them
      --pooling=mean|max|mean_plus_max|mean_std|last|FILE.py:NAME   over time (default: as each layer declares)
      --data_root=DIR                  where the CSV's relative paths begin        (default: the CSV's folder)
      --device=auto|cpu|cuda|mps                                                       (default: auto)
      --batch_size=N                   clips a batch                                   (default: by seconds of audio)
      --skip_bad                       unreadable clips are no reason for exit status 1

    Rows are in the order of the source: `path` (as in the CSV, else as you would open it), `seconds`, the CSV's columns,
    `start` and `end` in seconds from the beginning of the file (of windows, and of rows with times), and a vector for each
    layer (or "concat", "average"). With --frames, npz and h5 have all but the vectors once a clip, and `clip`, the clip's
    number, for each frame. All hold `meta`: encoder, weights and their hash, layers, pooling, versions and bad clips;
    read_metadata(FILE) of evar.exporting reads it.

    You can stop it at any time: finished parts are kept in FILE.parts. The same command goes on and writes the same file.
    When all is there, of the same files (path, size, time of last change) with the same settings, nothing is encoded.
    Exit status: 0 all rows are there, 1 some clip could not be used (it is left out, and named in `meta`), 2 the command
    line is wrong. The vectors are the numbers of `evar lineval` and of `evar.embed` in Python.
    """
    from evar.exporting import Source, export, require_format

    if not output:
        raise UsageError("evar embed needs --output=FILE (or -o FILE), which ends in .parquet, .npz or .h5")
    statistics_given = statistics(norm_stats, "norm_stats")
    if isinstance(statistics_given, str) and statistics_given != "default":
        raise UsageError(
            f"--norm_stats must be default or MEAN,STD here, got {norm_stats!r}: there is no task to take them from"
        )
    size = whole(batch_size, "batch_size")
    if size is not None and size < 1:
        raise UsageError(f"--batch_size must be at least 1, got {size}")
    with_frames, skip = truth(frames, "frames"), truth(skip_bad, "skip_bad")
    require_format(Path(output))
    clips = Source(source, data_root or None, decimal(window, "window"), decimal(hop, "hop"))
    from evar.encoders import load_encoder
    from evar.exporting.recipe import Recipe
    from evar.numeric.device import pick_device

    given = statistics_given if isinstance(statistics_given, tuple) else None
    loaded = load_encoder(encoder, weights or None, norm_stats=given, device=pick_device(device))
    if loaded.norm_stats is not None and loaded.default_norm_stats == "train" and given is None:
        write_text(
            f"{encoder} normalises its log-mel by mean {loaded.norm_stats[0]:g} and standard deviation "
            f"{loaded.norm_stats[1]:g}, its own constants (evar lineval takes those of the training clips); "
            "--norm_stats=MEAN,STD gives others"
        )
    if loaded.weights_label == "random" and weights != "random":
        write_text(
            f"NOTE: {encoder} has random weights, for it names no checkpoint: its vectors mean little; --weights=PATH gives "
            "a checkpoint"
        )
    names = ("default" if fusion == "none" else None) if layers in ("", "default") else layers
    recipe = Recipe.of(loaded, names, None if fusion in ("", "none") else fusion, pooling or None, with_frames)
    done = export(loaded, clips, output, recipe, batch_size=size, skip_bad=skip)
    write_text("\n".join(done.summary(output)))
    return SOME_FAILED if done.meta["bad_clips"] and not skip else DONE


def store(action: str = "ls", store: str = "", encoder: str = "", digest: str = "") -> int:
    """List or prune stored features.

    evar store ls    [--store=DIR]
    evar store prune [--store=DIR] [--encoder=NAME] [--digest=HEX]

    prune deletes the features of one encoder or of one key (the digest that ls prints, or its beginning); with neither it
    deletes only what a killed run left uncommitted. Features can always be computed again. Of a store at an address
    (s3://...) both see the mirror on this machine only.
    """
    from evar.storage.feature_store import FeatureStore

    features = FeatureStore(store or None)
    if action == "ls":
        entries = features.contents()
        rows = [
            [
                e["encoder"],
                e["digest"],
                str(e["clips"]),
                str(e["layers"]),
                f"{e['bytes'] / 1e6:.1f}",
                e["clip"],
                e["weights"],
            ]
            for e in entries
        ]
        write_text(columns(["encoder", "digest", "clips", "layers", "MB", "clip policy", "weights"], rows, width=40))
        write_text(f"{features.folder}: {sum(entry['bytes'] for entry in entries) / 1e6:.1f} MB")
        return DONE
    if action == "prune":
        removed = features.prune(encoder or None, digest or None)
        for folder in removed:
            write_text(f"removed {folder}")
        write_text(f"{len(removed)} folders removed under {features.folder}")
        return DONE
    raise UsageError(f"evar store: no action {action!r}; {near_miss(action, ['ls', 'prune'])}")
