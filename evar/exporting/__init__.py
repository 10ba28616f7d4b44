"""`evar embed`: vectors of any number of clips in a file of their own, to be used anywhere else.

Clips are taken in portions of a fixed size, in the order of the source. Each portion is encoded and committed as a part
beside the output; when all are there, the output is put together from them and takes its name. So memory does not grow
with the number of clips, and a run that was killed goes on where it stopped and gives the same file.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evar.config.disk import explain_writing
from evar.config.messages import progress_bar, tell
from evar.exporting.parts import digest_of, is_committed, record_file, remove_unfinished
from evar.exporting.repeats import FileCounter, Homes
from evar.exporting.sources import TIMES, Source, portions
from evar.exporting.table import Table
from evar.exporting.writers import FORMATS, RESERVED, read_metadata, require_format

if TYPE_CHECKING:
    from evar.encoders.base import Encoder
    from evar.exporting.recipe import Recipe

__all__ = ["Exported", "Source", "export", "read_metadata", "require_format"]

#: clips in a part: a killed run loses at most these; they are sorted into batches together
CLIPS_A_PART = 256
#: seconds to wait for another run with the same output: one that was killed needs some to die on a busy machine
_PATIENCE = 60.0
#: bad clips that are named in the terminal
_SHOWN = 20


@dataclass(frozen=True)
class Exported:
    """Result of an export.

    Attributes:
        meta: of the output, as `read_metadata` gives it.
        n_encoded: clips that were decoded and encoded now; the others were there.
        was_there: the output was there already, of the same files with the same settings.
        kept: folder of the parts where it is kept, for when the bad clips are mended; else None.
        left_out: one line that names the files that were left out in folders; "" for none.
    """

    meta: dict[str, Any]
    n_encoded: int
    was_there: bool
    kept: Path | None
    left_out: str = ""

    def summary(self, output: str | Path) -> list[str]:
        """Write lines for the terminal: the bad clips, the content of the output, and the next step.

        Args:
            output: path of the output, as the lines name it.

        Returns:
            The lines, the bad clips first.

        Example:
            >>> bad = [{"path": "b.wav", "reason": "the file is empty"}]
            >>> meta = {"bad_clips": bad, "n_clips": 1, "rows": "clips", "features": {"logmel": 128}}
            >>> for line in Exported(meta, n_encoded=1, was_there=False, kept=None).summary("features.npz"):
            ...     print(line)
            bad clip: b.wav: the file is empty
            features.npz: 1 of 2 clips: logmel (128); 1 encoded now
        """
        bad = self.meta["bad_clips"]
        lines = [f"bad clip: {clip['path']}: {clip['reason']}" for clip in bad[:_SHOWN]]
        if len(bad) > _SHOWN:
            lines.append(f"bad clips: ... and {len(bad) - _SHOWN} more, all in the metadata of {output}")
        lines += [self.left_out] if self.left_out else []
        n_good = self.meta["n_clips"]
        noun = "windows" if "window_seconds" in self.meta else "clips"
        shown = f"{n_good} {noun}" if not bad else f"{n_good} of {n_good + len(bad)} {noun}"
        if self.meta["rows"] == "frames":
            shown += f", {self.meta['n_rows']} frames"
        shapes = ", ".join(f"{name} ({width})" for name, width in self.meta["features"].items())
        state = "all there already, nothing was encoded" if self.was_there else f"{self.n_encoded} encoded now"
        lines.append(f"{output}: {shown}: {shapes}; {state}")
        if self.kept:
            lines.append(
                f"{self.kept} is kept: mend the bad clips and run again, or have it taken away with --skip_bad"
            )
        return lines


def export(
    encoder: Encoder,
    source: Source,
    output: str | Path,
    recipe: Recipe | None = None,
    *,
    batch_size: int | None = None,
    skip_bad: bool = False,
) -> Exported:
    """Encode every clip and write its vectors, or its frames, to a file.

    Args:
        encoder: as `load_encoder` gives it.
        source: the clips; the rows come in their order.
        output: a path that ends in .parquet, .npz or .h5.
        recipe: the layers, their pooling and fusion, or the frames; None takes what `Recipe.of(encoder)` takes.
        batch_size: clips a batch; None takes as many as `encoder.batch_seconds` of audio.
        skip_bad: the bad clips, if any, are not going to be mended: their neighbours' parts need not be kept.

    Returns:
        What is in the output, and what it took. Clips that cannot be used are listed in its metadata.

    Raises:
        ValueError: if a CSV cannot be used, or no clip can.
        ImportError: if the format needs a package that is not installed.
        OSError: if the output is a file of something else, another run is writing it, or it will not fit on the disk.

    Example:
        >>> import tempfile
        >>> import soundfile
        >>> from evar.encoders import load_encoder
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     soundfile.write(Path(folder) / "clip.wav", [0.0] * 8000, 16000)
        ...     result = export(load_encoder("logmel"), Source([f"{folder}/clip.wav"]), Path(folder) / "features.npz")
        ...     result.n_encoded, result.meta["n_clips"], result.meta["features"]
        (1, 1, {'logmel': 128})
    """
    from evar.exporting.encoding import encode
    from evar.exporting.recipe import Recipe, settings_of

    output = Path(output)
    require_format(output)
    recipe = recipe or Recipe.of(encoder)
    _require_own_names([name for name in source.columns if name not in TIMES], recipe)
    settings = settings_of(encoder, recipe, source.columns) | source.describe_windows()
    text = json.dumps(settings, default=str)
    before = _read_old_metadata(output)
    folder = output.with_name(f"{output.name}.parts")
    with _hold_folder(folder, output):
        n_clips, n_done, digest, repeated = _survey(source, text, folder)
        if before and before.get("digest") == digest:
            kept = folder if before["bad_clips"] and not skip_bad and any(folder.glob("*.json")) else None
            _clear(folder, kept)
            return Exported(before, 0, True, kept, source.left_out.describe())
        _require_space(output.parent, recipe, n_clips, n_done)
        digests: list[str] = []
        homes = Homes(repeated)

        with progress_bar(
            total=n_clips, initial=n_done, desc=encoder.name, unit="clip", smoothing=0.1, mininterval=0.5
        ) as bar:
            try:
                encode(encoder, recipe, _list_missing(source, text, folder, homes, digests), folder, batch_size, bar)
            except OSError:
                remove_unfinished(folder)
                raise
        table = Table(folder, digests, recipe.features, source.columns, settings["hop_seconds"], homes.places)
        if not table.n_clips:
            _clear(folder, None)
            raise ValueError(f"none of {len(table.bad)} clips could be used, first {': '.join(table.bad[0])}")
        table.meta = _make_metadata(table, source, text, digests)
        _assemble(table, output)
        kept = folder if table.bad and not skip_bad else None
        _clear(folder, kept)
        return Exported(table.meta, n_clips - n_done, False, kept, source.left_out.describe())


def _list_missing(
    source: Source, settings: str, folder: Path, homes: Homes, digests: list[str]
) -> Iterator[tuple[str, Any, frozenset[int]]]:
    """Yield the parts that are not committed yet; the digest of every part is added to `digests`."""
    seen: set[str] = set()
    for clips in portions(source, CLIPS_A_PART):
        digests.append(digest_of(settings, clips))
        elsewhere = homes.visit(digests[-1], clips)
        if digests[-1] in seen:  # the same rows of the table again
            continue
        seen.add(digests[-1])
        if not is_committed(folder, digests[-1], homes.places, homes.has_repeats):
            yield digests[-1], clips, elsewhere


def _make_metadata(table: Table, source: Source, settings: str, digests: Sequence[str]) -> dict[str, Any]:
    return {
        "made_by": "evar embed",
        **json.loads(settings),
        "source": source.words,
        "n_clips": table.n_clips,
        "n_rows": table.n_rows,
        "bad_clips": [{"path": path, "reason": reason} for path, reason in table.bad],
        "digest": _combine_digests(digests),
    }


def _survey(source: Source, settings: str, folder: Path) -> tuple[int, int, str, frozenset[int]]:
    """Look at every path, and open no file.

    Returns:
        Clips in all, clips in committed parts, the digest of the whole, and the hashes of files that repeat.
    """
    n_clips = n_done = 0
    digests = []
    counter = FileCounter()
    for clips in portions(source, CLIPS_A_PART):
        counter.add(clips)
        digests.append(digest_of(settings, clips))
        n_clips += len(clips)
        n_done += len(clips) if record_file(folder, digests[-1]).is_file() else 0
    return n_clips, n_done, _combine_digests(digests), counter.find_repeated()


def _combine_digests(digests: Sequence[str]) -> str:
    return hashlib.sha256(" ".join(digests).encode()).hexdigest()[:32]


def _assemble(table: Table, output: Path) -> None:
    """Write beside the parts, then give it its name."""
    write = FORMATS[output.suffix.lower()][0]
    unfinished = table.folder / "unfinished"
    with explain_writing(output):
        try:
            write(unfinished, table)
            with open(unfinished, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(unfinished, output)
        finally:
            unfinished.unlink(missing_ok=True)


def _read_old_metadata(output: Path) -> dict[str, Any] | None:
    """Read the metadata of an earlier output (None if there is none); a file of another kind is not replaced."""
    if not output.exists():
        return None
    try:
        return read_metadata(output)
    except ValueError as error:
        raise FileExistsError(f"{error}; choose another name for the output, or delete it") from error


def _require_own_names(columns: Sequence[str], recipe: Recipe) -> None:
    for name in columns:
        if name in RESERVED or name in recipe.features:
            raise ValueError(f"the CSV's column {name!r} has the name of a column of the output; rename it in the CSV")


def _require_space(folder: Path, recipe: Recipe, n_clips: int, n_done: int) -> None:
    """Refuse to begin what cannot end: parts and output are there at the same time (frames are not known before)."""
    n_bytes = 0 if recipe.hop else 4 * sum(recipe.features.values()) * (2 * n_clips - n_done)
    free = shutil.disk_usage(folder).free
    if n_bytes > free:
        raise OSError(
            f"{n_clips} clips need about {n_bytes / 1e9:.1f} GB under {folder}, where {free / 1e9:.1f} GB are free; "
            "choose another disk, or fewer layers"
        )


@contextlib.contextmanager
def _hold_folder(folder: Path, output: Path) -> Iterator[None]:
    """Hold the folder of the parts: two runs that write one output would take each other's parts away."""
    import filelock

    lock = filelock.FileLock(folder / "lock")
    with explain_writing(output):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            tell(f"another run is writing {output}; waiting for it")
            try:
                lock.acquire(timeout=_PATIENCE)
            except filelock.Timeout:
                raise OSError(f"another run is still writing {output}; wait for it, or choose another name") from None
    try:
        yield
    finally:
        lock.release()
        with contextlib.suppress(OSError):  # parts to go on with stay there
            if {file.name for file in folder.iterdir()} <= {"lock"}:
                (folder / "lock").unlink(missing_ok=True)
                folder.rmdir()


def _clear(folder: Path, kept: Path | None) -> None:
    """Take the parts away, unless they are kept."""
    if kept is None:
        for file in folder.iterdir():
            if file.name != "lock":
                file.unlink()
