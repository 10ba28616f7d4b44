"""Find the clips of a task that also occur in a training corpus, by the corpus's fingerprints."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from evar.config.messages import progress_bar
from evar.data.corpus_prints import Occurrence, find_in_corpus, read_corpus_prints
from evar.data.fingerprint import SoundPrint, make_prints

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
        task: whose clips are there; of each file, the part that the task uses is compared, at most a minute.
        corpus: a file that `evar fingerprint` wrote.

    Raises:
        ValueError: if the corpus file is damaged, or is no file of fingerprints.
        OSError: if it cannot be opened.
    """
    with open(corpus, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    prints, unreadable = make_prints(task.paths, task.config.clip_seconds, f"fingerprint {task.name}")
    paths = task.index["path"].tolist()
    bad = {paths[number]: reason for number, reason in unreadable.items()}
    n_sounds = 0

    def count_sounds() -> Iterator[SoundPrint]:
        nonlocal n_sounds
        for one in progress_bar(read_corpus_prints(corpus), f"search {Path(corpus).name}", unit="sound", leave=False):
            n_sounds += 1
            yield one

    found = {paths[one.clip]: one for one in find_in_corpus(prints, count_sounds())}
    return Overlap(found, bad, n_sounds, digest)
