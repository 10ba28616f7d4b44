"""Time and memory of a corpus's fingerprints: writing them, and looking for a task's clips in them.

    python benchmarks/fingerprint.py FOLDER [--sounds=100000] [--clips=1000] [--seconds=10] [--large=100000]

The first part links the sounds of FOLDER again and again until there are --sounds files, and writes their fingerprints as
`evar fingerprint` does. The second part needs no sound: it writes a file of --large random prints of --seconds each, a part
at a time, puts --clips of them into a task, and looks for them. Memory must grow with the task, not with the corpus.
"""

from __future__ import annotations

import argparse
import itertools
import os
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from evar.audio.folders import find_audio
from evar.data.corpus_prints import SoundPrint, find_in_corpus, read_corpus_prints, write_corpus_prints
from evar.data.fingerprint import HOP, RATE


def report(what: str, began: float) -> None:
    """Print seconds and the peak memory of the process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{what}: {time.perf_counter() - began:.1f} s, peak {peak:.0f} MiB", flush=True)


def measure_writing(folder: Path, n_sounds: int, work: Path) -> None:
    """Link the folder's sounds until there are enough, write their fingerprints, and read them again."""
    sounds = list(find_audio(folder))
    for number, path in zip(range(n_sounds), itertools.cycle(sounds)):
        link = work / "corpus" / f"{number // 1000:04d}" / f"{number:07d}{Path(path).suffix}"
        link.parent.mkdir(parents=True, exist_ok=True)
        os.symlink(Path(path).resolve(), link)
    began = time.perf_counter()
    written = write_corpus_prints(work / "corpus", work / "corpus.fp")
    size = f"{written.seconds / 3600:.1f} h, {written.n_bytes / 1e6:.0f} MB"
    report(f"write {written.n_sounds} sounds, {size}, {len(written.bad)} bad", began)
    began = time.perf_counter()
    clips = list(itertools.islice(read_corpus_prints(work / "corpus.fp"), 300))
    found = find_in_corpus(clips, read_corpus_prints(work / "corpus.fp"))
    report(f"search {len(clips)} clips in them, {len(found)} found", began)


def make_prints(n_sounds: int, n_words: int) -> Iterator[SoundPrint]:
    """Prints of random words, the same at every call."""
    for number in range(n_sounds):
        words = np.random.default_rng(number).integers(0, 2**32, n_words, dtype=np.uint32)
        yield SoundPrint(number.to_bytes(16, "little"), words, np.ones(n_words, bool))


def measure_searching(n_sounds: int, n_clips: int, seconds: float) -> None:
    """Look for clips in a large corpus, which is made while it is read."""
    n_words = round(seconds * RATE / HOP)
    chosen = set(np.random.default_rng(0).choice(n_sounds, n_clips, replace=False).tolist())
    clips = []
    for number, one in enumerate(make_prints(max(chosen) + 1, n_words) if chosen else ()):
        if number in chosen:  # half of the sound, under another content
            clips.append(SoundPrint(b"other", one.words[n_words // 4 :], one.is_sound[n_words // 4 :]))
    began = time.perf_counter()
    for _ in make_prints(n_sounds, n_words):
        pass
    making = time.perf_counter() - began
    began = time.perf_counter()
    found = find_in_corpus(clips, make_prints(n_sounds, n_words))
    report(
        f"search {n_clips} clips in {n_sounds} sounds of {seconds:g} s, {len(found)} found ({making:.0f} s for making them)",
        began,
    )


def main() -> None:
    """Measure both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sounds", type=int, default=100_000)
    parser.add_argument("--clips", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--large", type=int, default=100_000)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        measure_writing(chosen.folder, chosen.sounds, Path(work))
    if chosen.large:
        measure_searching(chosen.large, chosen.clips, chosen.seconds)


if __name__ == "__main__":
    main()
