"""Find the clips of a task that also occur in a training corpus, of which only fingerprints are at hand."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from evar.config.messages import progress_bar
from evar.data.corpus_prints import Occurrence, SoundPrint, find_in_corpus, make_print, read_corpus_prints
from evar.data.fingerprint import MAX_SECONDS

if TYPE_CHECKING:
    from evar.data.task import Task


@dataclass(frozen=True)
class Overlap:
    """The clips that a task and a corpus have in common.

    Attributes:
        found: path of a clip in the index -> its occurrence in the corpus.
        bad: path -> why the clip could not be read, and so was not looked for.
        n_sounds: in the corpus.
        corpus_sha256: hash of the corpus file.
    """

    found: dict[str, Occurrence]
    bad: dict[str, str]
    n_sounds: int
    corpus_sha256: str


def find_overlap(task: Task, corpus: str | Path) -> Overlap:
    """Look for every clip of a task in a corpus.

    Args:
        task: its clips must be there; of longer files the part that the task uses, at most a minute.
        corpus: a file that `evar fingerprint` wrote.

    Raises:
        ValueError: if the corpus file is damaged or no such file.
        OSError: if it cannot be opened.
    """
    from evar.audio.errors import AudioError

    with open(corpus, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    seconds = min(task.config.clip_seconds or MAX_SECONDS, MAX_SECONDS)

    def look(path: Path) -> SoundPrint | str:
        try:
            return make_print(path, seconds)
        except AudioError as error:
            return str(error)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        looked = list(progress_bar(pool.map(look, task.paths), f"fingerprint {task.name}", len(task), leave=False))
    paths = task.index["path"].tolist()
    bad = {path: one for path, one in zip(paths, looked, strict=True) if isinstance(one, str)}
    nothing = SoundPrint(b"", np.zeros(0, np.uint32), np.zeros(0, bool))
    prints = [nothing if isinstance(one, str) else one for one in looked]
    n_sounds = 0

    def count_sounds() -> Iterator[SoundPrint]:
        nonlocal n_sounds
        for one in progress_bar(read_corpus_prints(corpus), f"search {Path(corpus).name}", unit="sound", leave=False):
            n_sounds += 1
            yield one

    found = {paths[one.clip]: one for one in find_in_corpus(prints, count_sounds())}
    return Overlap(found, bad, n_sounds, digest)
