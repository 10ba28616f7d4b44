"""Losses, scores and learning rates of a training, epoch by epoch: as a table, a plot, and for TensorBoard."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from evar.finetune.clips import Trained


@contextmanager
def open_board(folder: Path, is_wanted: bool) -> Iterator[Callable[[dict[str, float]], None] | None]:
    """Give a function that writes an epoch's numbers for TensorBoard, or None if that is not wanted."""
    if not is_wanted:
        yield None
        return
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ImportError("--tensorboard needs the package tensorboard: pip install 'evar-audio[finetune]'") from error
    with SummaryWriter(str(folder / "tensorboard")) as writer:

        def on_epoch(numbers: dict[str, float]) -> None:
            for name, value in numbers.items():
                if name != "epoch":
                    writer.add_scalar(name, value, int(numbers["epoch"]))
            writer.flush()

        yield on_epoch


def save_curves(trained: Trained, folder: Path, label: str) -> None:
    """Write `curves.csv` and `curves.png`: losses, validation score and learning rate by epoch."""
    import csv
    import io

    from evar.figures.style import COLOURS, PAGE_INCHES, make_figure, save_figure
    from evar.storage.atomic import write_atomic

    if not trained.history:
        return
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(trained.history[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(trained.history)
    write_atomic(folder / "curves.csv", buffer.getvalue().encode())
    epochs = [one["epoch"] for one in trained.history]
    figure = make_figure(PAGE_INCHES, 2.0, f"{label}; the dotted line is the epoch whose weights were tested.")
    panels: Sequence[tuple[str, Sequence[str]]] = (
        ("loss", ("train_loss", "valid_loss")),
        ("validation score", ("valid_score",)),
        ("learning rate", ("learning_rate",)),
    )
    for ax, (title, names) in zip(figure.subplots(1, 3), panels, strict=True):
        for colour, name in zip(COLOURS, names, strict=False):
            values = [one[name] for one in trained.history]
            ax.plot(epochs, values, color=colour, label=name.replace("_", " "), linewidth=1.2)
        ax.axvline(trained.best_epoch, color="0.4", linestyle=":", linewidth=1)
        ax.set_xlabel("epoch")
        ax.set_title(title, fontsize=8)
        if len(names) > 1:
            ax.legend(fontsize=7, frameon=False)
    save_figure(figure, folder / "curves")
