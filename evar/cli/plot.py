"""The command that draws pictures."""

from __future__ import annotations

from evar.cli.terminal import DONE, columns
from evar.cli.words import decimal, statistics, whole
from evar.config.messages import write_text


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
    start: str = "",
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
    evar plot confusion results/runs/ID.json [flags]           what a row mixes up, the score of every class, every clip
    evar plot predictions results/runs/ID.json [flags]         the same for numbers and for several labels a clip

    Examples:
      evar plot clip dog.wav --encoders=logmel,crepe.tiny,aisfx
      evar plot sensitivity flute.wav --encoders=crepe.tiny,aisfx --layers=all
      evar plot map gm_pitch --encoders=crepe.tiny,aisfx
      evar plot map esc10 --encoders=aisfx --layers=all --method=umap --data_root=/data --out=paper/figure3.png

    Flags of all pictures:
      --encoders=NAME,NAME             see `evar encoders`
      --layers=default|all|NAME,NAME   one strip, line or panel each; 0 is the first layer, -1 the last
                                       (default: default)
      --weights=PATH|URL|hf:ORG/NAME|random   another checkpoint, of one encoder; random is marked in the picture
      --norm_stats=default|MEAN,STD    of the log-mel, for encoders that normalise by them; default: the encoder's own
                                       constants, also where lineval takes training clips; map also knows: task
      --device=auto|cpu|cuda|mps                                                       (default: auto)
      --out=DIR|FILE.png               folder, then PICTURE_NAME.png, .svg and .csv    (default: results)
    clip, sensitivity:
      --start=N                        begin N seconds into the file                   (default: 0)
      --seconds=N                      at most N seconds from there                    (default: 30)
    sensitivity, map:
      --seed=N                         of the noise; of the subset and the layout      (default: 0)
    map:
      --method=tsne|umap               umap needs the package umap-learn               (default: tsne)
      --data_root=DIR, --limit=N, --batch_size=N, --store=DIR   as for lineval; stored vectors are used again
      --max_clips=N                    of more, a class-balanced subset is drawn       (default: 2000)

    docs/pictures.md says how to read them.
    """
    if picture == "confusion":
        return _draw_confusion(target, out)
    if picture == "predictions":
        return _draw_predictions(target, out)
    from evar.numeric.device import pick_device
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
        start=decimal(start, "start"),
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
        write_text("\n" + columns(["encoder", "layer", "silhouette", f"purity@{data.n_neighbours}"], rows, width=60))
        write_text(f"{scores[0]['clips']} clips; purity by chance {100 * scores[0]['chance_purity']:.1f} %")
    write_text("written: " + ", ".join(str(path) for path in written))
    return DONE


def _draw_predictions(target: str, out: str) -> int:
    """Draw the predictions of one row, for tasks whose clips have a number or several labels."""
    from pathlib import Path

    from evar import results
    from evar.data.task_config import load_task_config
    from evar.pictures.saving import choose_stem
    from evar.report.plots.predictions import plot_predictions

    path = Path(target)
    row = results.load(path)
    names = load_task_config(row.task).classes
    written = plot_predictions(row, path.parent.parent, names, choose_stem(out, f"predictions_{row.id}"))
    write_text("written: " + ", ".join(str(file) for file in written))
    return DONE


def _draw_confusion(target: str, out: str) -> int:
    """The confusion matrix of one row."""
    from pathlib import Path

    from evar import results
    from evar.data.task_config import load_task_config
    from evar.pictures.saving import choose_stem
    from evar.report.plots.confusion import plot_confusion

    path = Path(target)
    row = results.load(path)
    config = load_task_config(row.task)
    names = config.classes or tuple(f"class {number}" for number in range(config.expected.classes or 0))
    written, scores = plot_confusion(row, path.parent.parent, names, choose_stem(out, f"confusion_{row.id}"))
    worst = sorted((one for one in scores if one["clips"]), key=lambda one: float(one["recall"]))[:10]
    table = [
        [str(one["class"]), str(one["clips"]), f"{100 * float(one['recall']):.1f}", f"{100 * float(one['f1']):.1f}",
         f"{one['taken_for']} ({one['taken_for_clips']})" if one["taken_for"] else "-"]
        for one in worst
    ]  # fmt: skip
    write_text(columns(["class (worst first)", "clips", "recall %", "F1 %", "taken for"], table, width=48))
    write_text("written: " + ", ".join(str(file) for file in written))
    return DONE
