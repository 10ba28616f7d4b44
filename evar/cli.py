"""The command line: `evar COMMAND ...` and, as scripts, `python lineval.py ...`.

python-fire calls the functions below, but it would run a command first and complain about a misspelt flag afterwards; so
every word of the command line is checked against the function's signature before fire sees it.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from evar.registry import near_miss
from evar.words import UsageError, check_words, decimal, statistics, truth, whole

#: exit status: all well; some cell of the grid failed; the command line or the input is wrong
DONE, SOME_FAILED, WRONG = 0, 1, 2


def lineval(
    encoders: str = "",
    tasks: str = "",
    layers: str = "",
    fusion: str = "",
    objective: str = "",
    max_layers: str = "",
    export: str = "",
    protocol: str = "",
    seeds: str = "",
    data_root: str = "",
    weights: str = "",
    norm_stats: str = "",
    device: str = "auto",
    batch_size: str = "",
    limit: str = "",
    out: str = "results",
    store: str = "",
    skip_bad: bool = False,
    dry_run: bool = False,
) -> int:
    """Linear evaluation of frozen encoders: one pass over the audio, a probe per layer, one table.

    evar lineval [ENCODERS TASKS | GRID] [flags]        (the same: python lineval.py ...)

    ENCODERS and TASKS are comma lists or `all`; see `evar encoders` and `evar tasks`. GRID is a name in config/grids or
    the path of such a YAML. Without arguments the embedded default grid runs: trained encoders and rendered sounds that
    come with pip packages, nothing else to download.

    Examples:
      evar lineval                                                      the default grid (minutes)
      evar lineval logmel,crepe.tiny esc10 --data_root=/data            two encoders on ESC-10
      evar lineval crepe.tiny esc10 --layers=all --data_root=/data      one row per layer, and the layer curve
      evar lineval ge2e,aisfx gm_pitch --limit=40 --dry_run             what would be done, and how long it takes
      evar lineval crepe.tiny gm_pitch --layers=conv4,conv6 --fusion=concat
      evar lineval crepe.tiny gm_pitch,spoken_words --fusion=search --export=general

    Flags:
      --layers=default|all|NAME,NAME   which layers to probe, one row each             (default: default)
      --fusion=none|concat|average|pca|weighted   make one feature of the layers instead   (default: none)
      --fusion=search                  all layers, pairs and more are tried on validation clips, for all TASKS at once, at no
                                       further encoding; the best is tested beside the default layer, the best single
                                       layers and the weighted sum of all (fusion.md)
      --objective=mean_score|mean_rank over the tasks, for a search                    (default: mean_score)
      --max_layers=N                   that a search may put together                  (default: 4)
      --export=NAME                    what a search chooses becomes an encoder of that name (several: ENCODER.NAME)
      --protocol=NAME                  hyper-parameters, config/protocols/NAME.yaml    (default: linear)
      --seeds=N                        repeats where something is random               (default: 1)
      --data_root=DIR                  folder that holds the tasks' folders            (default: $EVAR_DATA, ./data)
      --weights=PATH|URL|hf:ORG/NAME|random   another checkpoint; random = the untrained baseline, marked in tables
      --norm_stats=default|train|task|MEAN,STD   mean and std of the log-mel, for encoders that normalise by them:
                                       of the training clips of each round (one more encode a round), of all clips of
                                       the task, or as given; default: what the encoder's paper does
      --device=auto|cpu|cuda|mps                                                       (default: auto)
      --batch_size=N                   clips a batch                                   (default: by seconds of audio)
      --limit=N                        class-balanced subset: at most N clips of each split or fold
      --out=DIR                        results: runs/*.json, table.md, table.csv, plots (default: results)
      --store=DIR                      where features live                   (default: $EVAR_STORE, the user's cache)
      --skip_bad                       leave unreadable test clips out instead of counting them as wrong
      --dry_run                        print what would be computed, what is stored, time and disk; compute nothing

    Whatever was computed is on disk: stop it whenever you like, the same command goes on where it stopped.
    Exit status: 0 all rows are there, 1 some cell failed (its reason is in the table), 2 the command line is wrong.
    """
    from evar.grid import asked

    settings = asked(
        encoders,
        tasks,
        layers=layers,
        fusion=fusion,
        objective=objective,
        max_layers=whole(max_layers, "max_layers"),
        export=export or None,
        protocol=protocol,
        seeds=whole(seeds, "seeds"),
        data_root=data_root or None,
        weights=weights or None,
        norm_stats=statistics(norm_stats, "norm_stats"),
        device=device,
        batch_size=whole(batch_size, "batch_size"),
        limit=whole(limit, "limit"),
        out=out,
        store=store or None,
        skip_bad=truth(skip_bad, "skip_bad"),
    )
    if truth(dry_run, "dry_run"):
        from evar.dry_run import describe

        print(describe(settings))
        return DONE
    from evar.linear import run_grid
    from evar.report import build, fusion_text, terminal_table

    try:
        outcome = run_grid(settings)
    except KeyboardInterrupt:
        build(out)  # what is there is shown
        raise
    written = build(out)
    print("\n" + terminal_table(outcome.rows, outcome.failures, Path(out)))
    if settings.fusion == "search":
        print("\n" + fusion_text(out))
    print(f"\n{len(outcome.rows)} rows, {outcome.n_new} of them new; {outcome.n_encoded} clips encoded")
    print("written: " + ", ".join(str(path) for path in written))
    return SOME_FAILED if outcome.failures else DONE


def fuse(encoder: str, layers: str, name: str = "") -> int:
    """Make an encoder of some layers of another, side by side; every command takes its name from then on.

    evar fuse ENCODER LAYER,LAYER --name=NAME

    Example:
      evar fuse cnn14.16k block3,block6 --name=my_general
    then
      evar lineval my_general,cnn14.16k esc10,fsdd_digit
      evar layers my_general

    It writes NAME.yaml to your own configuration folder ($EVAR_CONFIG, else the user's); delete that to undo it. To let
    the data choose the layers: evar lineval ENCODER TASKS --fusion=search --export=NAME.
    """
    from evar.variants import write_variant

    if not name:
        raise UsageError("evar fuse needs --name=NAME, the name of the new encoder")
    path = write_variant(encoder, [layer.strip() for layer in layers.split(",") if layer.strip()], name)
    print(f"written: {path}\nnext: evar layers {name}, evar lineval {name} TASKS")
    return DONE


def encoders() -> int:
    """List the encoders: name, what it is, what it was trained on, licence of its weights.

    evar encoders
    """
    from evar import config

    rows = []
    for name in config.names("encoders"):
        entry = config.load_encoder_config(name)
        licence = entry.weights.licence if entry.weights else "no weights"
        rows.append([name, entry.description, entry.trained_on, licence])
    print(_columns(["encoder", "description", "trained on", "licence of the weights"], rows, width=60))
    return DONE


def layers(encoder: str) -> int:
    """List the layers of an encoder, shallow to deep.

    evar layers ENCODER

    width: features per frame; hop: samples between frames at the encoder's rate (0: one frame per clip); depth: relative,
    1 is the deepest; vector: features of a clip after pooling. The default layer is marked *.
    """
    from evar.encoders import load_encoder
    from evar.pooling import pooled_width

    built = load_encoder(encoder, "random")
    rows = []
    for number, layer in enumerate(built.layers, start=1):
        hop = f"{layer.hop} ({1000 * layer.hop / built.sample_rate:.4g} ms)" if layer.hop else "0 (clip)"
        mark = "*" if layer.name in built.default_layers else ""
        vector = pooled_width(layer.width, layer.pooling)
        depth = f"{number / len(built.layers):.2f}"
        rows.append([layer.name + mark, str(layer.width), hop, depth, layer.pooling, str(vector), layer.note])
    print(f"{encoder}: {built.sample_rate} Hz, at least {built.min_samples} samples (shorter clips are padded)")
    print(_columns(["layer", "width", "hop", "depth", "pooling", "vector", "note"], rows, width=60))
    return DONE


def check(encoder: str, weights: str = "random") -> int:
    """Run the whole contract on an encoder, anyone's, and say what is wrong with it and where to look.

    evar check ENCODER [--weights=random|PATH|URL|hf:ORG/NAME]

    ENCODER is a name that `evar encoders` lists, the path of a YAML, a class as module:Class (of a file in this folder, or
    anything installed), or hf:organisation/name. With random weights, the default, nothing is fetched.

    What every encoder promises: layers, widths, hops and frames as declared; silence, one sample and half a minute encoded
    without NaN; the same numbers at every call, alone or in a batch; a gradient for every parameter; input statistics that
    are taken from the clips' own sound and count; no network socket.

    Examples:
      evar check cnn14.16k
      evar check cnn14.16k --weights="Cnn14_16k_mAP=0.438.pth"
      evar check my_encoder:MyEncoder          (class MyEncoder in my_encoder.py, in this folder)

    Exit status 1 if a promise is broken.
    """
    from evar.contract import CHECKS, check_named
    from evar.encoders import load_encoder

    findings = check_named(encoder, weights)
    for finding in findings:
        print(f"- {finding}")
    if findings:
        print(f"{encoder}: {len(findings)} broken promises; `evar check --help` says what is promised")
        return SOME_FAILED
    built = load_encoder(encoder, weights)
    n_parameters = sum(parameter.numel() for parameter in built.parameters())
    print(
        f"{encoder} keeps every promise ({', '.join(check.__name__ for check in CHECKS)}, seeded, no_socket): "
        f"layers {built.layers[0].name} to {built.layers[-1].name}, {n_parameters / 1e6:.2f} M parameters"
        + (f", weights {built.weights_label}" if n_parameters else "")
    )
    print(
        f"next: evar layers {encoder}, and evar lineval {encoder} TASKS{'' if weights == 'random' else ' --weights=...'}"
    )
    return DONE


def tasks(data_root: str = "") -> int:
    """List the tasks: clips, classes, splits, licence, and whether the clips are there.

    evar tasks [--data_root=DIR]
    """
    from evar import config
    from evar.tasks import load_task

    rows = []
    for name in config.names("tasks"):
        task = load_task(name, data_root or None)
        n_missing = len(task.missing())
        if task.config.builder and n_missing:
            state = "rendered at first use"
        else:
            state = "ready" if not n_missing else f"{n_missing} of {len(task)} missing"
        entry = task.config
        splits = "folds: " + str(task.index["fold"].nunique()) if entry.splits == "folds" else "published"
        rows.append([name, entry.title, str(len(task)), str(len(entry.classes)), splits, state, entry.licence])
    print(_columns(["task", "title", "clips", "classes", "splits", "state", "licence"], rows, width=48))
    return DONE


def verify(task: str, data_root: str = "") -> int:
    """Decode every clip of a task and compare it with the index: names what is missing, undecodable or altered.

    evar verify TASK [--data_root=DIR]

    Exit status 1 if anything is wrong.
    """
    from evar.tasks import load_task, prepare

    loaded = load_task(task, data_root or None)
    prepare(loaded)
    found = loaded.verify()
    for title, paths in (
        ("missing", found.missing),
        ("undecodable", [f"{path}: {reason}" for path, reason in found.undecodable.items()]),
        ("altered (checksum)", found.wrong_checksum),
    ):
        for path in paths[:20]:
            print(f"{title}: {path}")
        if len(paths) > 20:
            print(f"{title}: ... and {len(paths) - 20} more")
    n_bad = len(found.missing) + len(found.undecodable) + len(found.wrong_checksum)
    print(f"{task}: {found.n_clips - n_bad} of {found.n_clips} clips are as published ({found.seconds:.0f} s of audio)")
    return DONE if found.ok else SOME_FAILED


def store(action: str = "ls", store: str = "", encoder: str = "", digest: str = "") -> int:
    """List or prune stored features.

    evar store ls    [--store=DIR]
    evar store prune [--store=DIR] [--encoder=NAME] [--digest=HEX]

    prune deletes the features of one encoder or of one key (the digest that ls prints, or its beginning); with neither it
    deletes only what a killed run left uncommitted. Features can always be computed again.
    """
    from evar.store import FeatureStore

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
        print(_columns(["encoder", "digest", "clips", "layers", "MB", "clip policy", "weights"], rows, width=40))
        print(f"{features.folder}: {sum(entry['bytes'] for entry in entries) / 1e6:.1f} MB")
        return DONE
    if action == "prune":
        removed = features.prune(encoder or None, digest or None)
        for folder in removed:
            print(f"removed {folder}")
        print(f"{len(removed)} folders removed under {features.folder}")
        return DONE
    raise UsageError(f"evar store: no action {action!r}; {near_miss(action, ['ls', 'prune'])}")


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
) -> int:
    """Write the vectors of any audio to a file (parquet, npz, h5), to be used anywhere else: take the feature home.

    evar embed ENCODER SOURCE... --output=FILE [flags]            (-o FILE is short for --output=FILE)

    SOURCE is an audio file, a folder (searched to the bottom, files by name, hidden ones left out) or a CSV with a column
    `path`. A CSV's other columns, such as labels, are carried into the output as texts. Its relative paths begin at the
    CSV's folder, or at --data_root, and may not leave it ("..", "\\"); absolute paths are taken as they are.

    Examples:
      evar embed cnn14.16k recordings/ -o features.parquet
      evar embed crepe.tiny clips.csv --data_root=/data --layers=conv3,conv5 -o features.npz
      evar embed ast one.wav two.flac --layers=block5,block12 --fusion=concat -o features.h5
      evar embed wav2vec2.base speech/ --frames -o frames.parquet

    Flags:
      --output=FILE, -o FILE           ends in .parquet (needs pyarrow), .npz, or .h5 (needs h5py)
      --layers=default|all|NAME,NAME   one column each; several default layers are concatenated   (default: default)
      --fusion=concat|average          make one column of the layers instead
      --frames                         a row a frame: `time` is when its hop begins, `hop` how long it is, in seconds;
                                       the layers must share one hop
      --weights=PATH|URL|hf:ORG/NAME|random   another checkpoint
      --norm_stats=default|MEAN,STD    mean and std of the log-mel, for encoders that normalise by them
      --pooling=mean|max|mean_plus_max|mean_std|last   over time      (default: as each layer declares)
      --data_root=DIR                  where the CSV's relative paths begin        (default: the CSV's folder)
      --device=auto|cpu|cuda|mps                                                       (default: auto)
      --batch_size=N                   clips a batch                                   (default: by seconds of audio)
      --skip_bad                       unreadable clips are no reason for exit status 1

    Rows are in the order of the source: `path` (as in the CSV, else as you would open it), `seconds`, the CSV's columns,
    and a vector for each layer (or "concat", "average"). With --frames, npz and h5 have `path`, `seconds` and the CSV's
    columns once a clip, and `clip`, the clip's number, for each frame. All hold `meta`: encoder, weights and their hash,
    layers, pooling, versions and bad clips; read_metadata(FILE) of evar.exporting reads it.

    Stop it whenever you like: what is done lies in FILE.parts, and the same command goes on and writes the same file.
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
    clips = Source(source, data_root or None)
    from evar.encoders import load_encoder
    from evar.linear import pick_device

    given = statistics_given if isinstance(statistics_given, tuple) else None
    loaded = load_encoder(encoder, weights or None, norm_stats=given, device=pick_device(device))
    if loaded.norm_stats is not None and loaded.default_norm_stats == "train" and given is None:
        print(
            f"{encoder} normalises its log-mel by mean {loaded.norm_stats[0]:g} and standard deviation "
            f"{loaded.norm_stats[1]:g}, its own constants (evar lineval takes those of the training clips); "
            "--norm_stats=MEAN,STD gives others"
        )
    done = export(
        loaded,
        clips,
        output,
        ("default" if fusion == "none" else None) if layers in ("", "default") else layers,
        None if fusion in ("", "none") else fusion,
        pooling=pooling or None,
        frames=with_frames,
        batch_size=size,
        skip_bad=skip,
    )
    print("\n".join(done.summary(output)))
    return SOME_FAILED if done.meta["bad_clips"] and not skip else DONE


def compare(out: str = "results") -> int:
    """Build tables and plots again from the result files, without torch, and print the table.

    evar compare [--out=results]
    """
    from evar import report, results

    rows = results.load_all(Path(out))
    if not rows:
        raise UsageError(f"no results below {out}/runs; run `evar lineval` first or name the folder with --out")
    written = report.build(out)
    print(report.terminal_table(rows, results.load_failures(Path(out)), Path(out)))
    print("written: " + ", ".join(str(path) for path in written))
    return DONE


def plot(
    picture: str,
    target: str,
    encoders: str = "",
    layers: str = "",
    weights: str = "",
    norm_stats: str = "",
    device: str = "auto",
    out: str = "results",
    seconds: str = "",
    seed: str = "",
    method: str = "",
    data_root: str = "",
    limit: str = "",
    max_clips: str = "",
    batch_size: str = "",
    store: str = "",
) -> int:
    """Pictures: a clip and its vectors, what moves a vector, all clips of a task in the plane; PNG, SVG and CSV.

    evar plot clip FILE --encoders=NAME,NAME [flags]           waveform, spectrogram, the vector of each encoder
    evar plot sensitivity FILE --encoders=NAME,NAME [flags]    how far each layer's vector moves with pitch, level, noise
                                                               and time shift
    evar plot map TASK --encoders=NAME,NAME [flags]            t-SNE or UMAP of each layer, with silhouette and purity

    Examples:
      evar plot clip dog.wav --encoders=logmel,crepe.tiny,aisfx
      evar plot sensitivity flute.wav --encoders=crepe.tiny,aisfx --layers=all
      evar plot map gm_pitch --encoders=crepe.tiny,aisfx
      evar plot map esc10 --encoders=aisfx --layers=all --method=umap --data_root=/data --out=paper/figure3.png

    Flags of all pictures:
      --encoders=NAME,NAME             see `evar encoders`
      --layers=default|all|NAME,NAME   one strip, line or panel each                   (default: default)
      --weights=PATH|URL|hf:ORG/NAME|random   another checkpoint, of one encoder; random is marked in the picture
      --norm_stats=default|MEAN,STD    of the log-mel, for encoders that normalise by them; default: the encoder's own
                                       constants, also where lineval takes training clips; map also knows: task
      --device=auto|cpu|cuda|mps                                                       (default: auto)
      --out=DIR|FILE.png               folder, then PICTURE_NAME.png, .svg and .csv    (default: results)
    clip, sensitivity:
      --seconds=N                      only the first N seconds of the file            (default: 30)
    sensitivity, map:
      --seed=N                         of the noise; of the subset and the layout      (default: 0)
    map:
      --method=tsne|umap               umap needs the package umap-learn               (default: tsne)
      --data_root=DIR, --limit=N, --batch_size=N, --store=DIR   as for lineval; stored vectors are used again
      --max_clips=N                    of more, a class-balanced subset is drawn       (default: 2000)

    docs/pictures.md says how to read them.
    """
    from evar.linear import pick_device
    from evar.pictures.command import plot as make

    written, data = make(
        picture,
        target,
        encoders,
        layers=layers,
        weights=weights or None,
        norm_stats=statistics(norm_stats, "norm_stats"),
        device=pick_device(device),
        out=out,
        seconds=decimal(seconds, "seconds"),
        seed=whole(seed, "seed"),
        method=method,
        data_root=data_root,
        limit=whole(limit, "limit"),
        max_clips=whole(max_clips, "max_clips"),
        batch_size=whole(batch_size, "batch_size"),
        store=store,
    )
    if data is not None:
        scores = data.scores().to_dict("records")
        rows = [
            [one["encoder"], one["layer"], f"{one['silhouette']:.3f}", f"{100 * one['purity']:.1f} %"] for one in scores
        ]
        print("\n" + _columns(["encoder", "layer", "silhouette", f"purity@{data.n_neighbours}"], rows, width=60))
        print(f"{scores[0]['clips']} clips; purity by chance {100 * scores[0]['chance_purity']:.1f} %")
    print("written: " + ", ".join(str(path) for path in written))
    return DONE


COMMANDS: dict[str, Callable[..., int]] = {
    "lineval": lineval,
    "fuse": fuse,
    "encoders": encoders,
    "layers": layers,
    "check": check,
    "tasks": tasks,
    "verify": verify,
    "embed": embed,
    "store": store,
    "compare": compare,
    "plot": plot,
}


def main(prefix: Sequence[str] = ()) -> None:
    """Entry point of the console script; scripts give the name of their command as prefix."""
    sys.path.append(os.getcwd())  # a user's own classes, "module:Class"; last, so that they hide nothing
    try:
        status = run([*prefix, *sys.argv[1:]])
        sys.stdout.flush()
    except BrokenPipeError:  # the reader (`| head`) had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = DONE
    sys.exit(status)


def run(words: Sequence[str]) -> int:
    """Carry out one command line and return its exit status."""
    if not words or words[0] in ("-h", "--help", "help"):
        print(_overview())
        return DONE
    name, arguments = words[0], list(words[1:])
    if name in ("--version", "version"):
        from evar import __version__

        print(__version__)
        return DONE
    try:
        if name not in COMMANDS:
            raise UsageError(f"no command {name!r}; {near_miss(name, COMMANDS)}")
        command = COMMANDS[name]
        if any(word in ("-h", "--help") for word in arguments):
            print(inspect.getdoc(command))
            return DONE
        return _call(command, check_words(name, command, arguments))
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on where it stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        raise
    except (ValueError, OSError, ImportError) as error:
        text = " ".join(str(error).split())
        print(text if text.startswith("evar ") else f"evar {name}: {text}", file=sys.stderr)
        return WRONG


def _call(command: Callable[..., int], words: Sequence[str]) -> int:
    """Let fire call the command with every value as text: what looks like a number stays what was typed."""
    import functools

    import fire
    from fire.decorators import SetParseFn

    status: list[int] = []

    @functools.wraps(command)
    def keep_status(*args: Any, **kwargs: Any) -> None:  # fire would print a returned number
        status.append(command(*args, **kwargs))

    fire.Fire(SetParseFn(str)(keep_status), command=list(words), name="evar")
    return status[0]


def _overview() -> str:
    lines = ["evar: which pre-trained audio representation, and which layer of it, serves your task.", ""]
    for name, command in COMMANDS.items():
        lines.append(f"  evar {name:9s} {(inspect.getdoc(command) or '').splitlines()[0]}")
    return "\n".join([*lines, "", "evar COMMAND --help says more, with examples."])


def _columns(header: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> str:
    """Aligned columns; long cells are cut at `width` characters."""
    cut = [[cell if len(cell) <= width else cell[: width - 1] + "…" for cell in row] for row in [header, *rows]]
    widths = [max(len(row[i]) for row in cut) for i in range(len(header))]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in cut]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])
