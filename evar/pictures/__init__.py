"""`evar plot`: pictures of a clip, of what moves its vector, and of a whole task.

Each has a data function (numbers in, numbers out), a drawing function (numbers in, figure out), and the numbers of the
picture as CSV beside it. `evar.pictures.command.plot` is the command line from Python.
"""

from __future__ import annotations

#: picture -> the flags that only some pictures take
PICTURES: dict[str, tuple[str, ...]] = {
    "clip": ("start", "seconds"),
    "sensitivity": ("start", "seconds", "seed"),
    "map": ("method", "data_root", "limit", "max_clips", "seed", "store", "batch_size"),
}
