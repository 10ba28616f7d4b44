"""Compare a task's index with the files on disk."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import pandas as pd

from evar.audio.reading import AudioError, ClipPolicy, inspect, read_clip
from evar.audio.segments import name_file
from evar.audio.sound_pool import SoundPool
from evar.config.messages import progress_bar
from evar.data.segments import locate_clip, name_segments
from evar.data.task_config import TaskConfig

#: names of bad clips that `Verification` keeps
NAMES_KEPT = 1000


@dataclass
class Verification:
    """Result of `evar verify`.

    Attributes:
        n_clips: in the index.
        n_missing, n_undecodable, n_altered: clips that do not exist, cannot be decoded, or differ from the index.
        missing: paths that do not exist; of these and the others the first `NAMES_KEPT`.
        undecodable: path -> reason.
        wrong_checksum: paths whose content differs from the index.
        seconds: of audio decoded.
    """

    n_clips: int = 0
    n_missing: int = 0
    n_undecodable: int = 0
    n_altered: int = 0
    missing: list[str] = field(default_factory=list)
    undecodable: dict[str, str] = field(default_factory=dict)
    wrong_checksum: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def n_bad(self) -> int:
        """Clips that are missing, undecodable or altered."""
        return self.n_missing + self.n_undecodable + self.n_altered

    @property
    def ok(self) -> bool:
        """True if every clip is there, whole and as published."""
        return not self.n_bad

    def add(self, path: str, problem: str, reason: str, seconds: float) -> None:
        """Count one clip; problem: "missing", "undecodable", "altered" or "" for none."""
        self.n_clips += 1
        self.seconds += seconds
        if problem == "missing":
            self.n_missing += 1
            self.missing += [path][: NAMES_KEPT - len(self.missing)]
        elif problem == "undecodable":
            self.n_undecodable += 1
            if len(self.undecodable) < NAMES_KEPT:
                self.undecodable[path] = reason
        elif problem == "altered":
            self.n_altered += 1
            self.wrong_checksum += [path][: NAMES_KEPT - len(self.wrong_checksum)]


def verify_files(config: TaskConfig, folder: Path, parts: Iterable[pd.DataFrame], n_clips: int) -> Verification:
    """Decode every clip of an index that is read in parts."""
    from concurrent.futures import ThreadPoolExecutor

    policy = ClipPolicy(config.clip_seconds, config.pad, config.crop, 0)

    def check(name: str, checksum: str, pool: SoundPool) -> tuple[str, str, float]:
        path = locate_clip(folder, name)
        if not path.is_file():
            return "missing", "", 0.0
        try:
            info = inspect(path)
            read_clip(path, info, policy, info.sample_rate, pool)
        except AudioError as error:
            return "undecodable", str(error), 0.0
        altered = bool(checksum) and not info.sha256.startswith(checksum)
        return "altered" if altered else "", "", policy.window(info)[1] / info.sample_rate

    def check_each(clips: Sequence[tuple[str, str]]) -> list[tuple[str, str, float]]:
        with SoundPool() as pool:
            return [check(*clip, pool) for clip in clips]

    found = Verification()
    bar = progress_bar(total=n_clips, desc=f"verify {config.name}", unit="clip", leave=False)
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for rows in parts:
            rows = name_segments(rows, config.name)
            checksums = rows["sha256"].tolist() if "sha256" in rows else [""] * len(rows)
            clips = zip(rows["path"].tolist(), checksums, strict=True)
            # Segments of one file that follow each other are read by one thread, which opens the file once.
            jobs = [list(own) for _, own in groupby(clips, key=lambda clip: name_file(clip[0]))]
            futures = [threads.submit(check_each, job) for job in jobs]
            for job, future in zip(jobs, futures, strict=True):
                for (path, _), result in zip(job, future.result(), strict=True):
                    found.add(path, *result)
                    bar.update()
    bar.close()
    return found
