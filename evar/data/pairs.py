"""Published pairs of clips, of which the list of a data set says whether both are of one class."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from evar.data.catalogue import find_published_file, read_lines

#: (path of a clip, path of another, whether they are of one class)
Pair = tuple[str, str, bool]
_EXAMPLE = "1 id10270/5r0dWxy17C8/00001.wav id10270/x6uYqmx31kE/00001.wav"


def read_pairs(path: Path) -> list[Pair]:
    """Read a list of pairs: lines of 1 or 0 (one class or not) and two paths, as VoxCeleb's lists of trials have it.

    Args:
        path: of the list.

    Returns:
        The pairs, in the order of the list, with paths as they stand there.

    Raises:
        ValueError: if a line is of another form, a path leaves its folder, or there is no line; the line is named.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "veri_test2.txt"
        ...     _ = path.write_text("1 a/1/1.wav a/2/1.wav\\n0 a/1/1.wav b/1/1.wav\\n")
        ...     read_pairs(path)
        [('a/1/1.wav', 'a/2/1.wav', True), ('a/1/1.wav', 'b/1/1.wav', False)]
    """
    pairs = []
    for number, line in enumerate(read_lines(path, _EXAMPLE), start=1):
        words = line.split()
        if len(words) != 3 or words[0] not in ("0", "1"):
            raise ValueError(f"{path} line {number}: expected 0 or 1 and two paths, as in {_EXAMPLE!r}, got {line!r}")
        pairs.append((words[1], words[2], words[0] == "1"))
    if not pairs:
        raise ValueError(f"{path} holds no pairs")
    return pairs


def load_pairs(top: Path, name: str, paths: Iterable[str]) -> list[Pair]:
    """Read the published pairs of a task, with paths as its index has them.

    Args:
        top: the data set's folder.
        name: of the list, in that folder or beside it.
        paths: of the index; a pair names a clip by its path, or by the path without its first folder.

    Returns:
        Pairs whose clips both are in the index.

    Raises:
        FileNotFoundError: if the list is not there.
        ValueError: as `read_pairs`, or if no pair has clips of the index.
    """
    known: dict[str, str] = {}
    for path in paths:
        known[path] = path
        known.setdefault(path.partition("/")[2], path)
    pairs = read_pairs(find_published_file(top, name, "get the published list of pairs and put it there"))
    found = [(known[one], known[other], same) for one, other, same in pairs if one in known and other in known]
    if not found:
        raise ValueError(f"{name}: no clip of its pairs is in the index, first {pairs[0][0]}")
    return found
