"""Compare an index with the files on disk in parts, without loading the whole index."""

from __future__ import annotations

from pathlib import Path

from evar import config as configs
from evar.data.index import IndexCheck, in_parts, with_classes
from evar.data.segments import name_segments
from evar.data.task import clips_folder, index_beside, load_task, prepare
from evar.data.task_config import TaskConfig
from evar.data.verification import Verification, verify_files


def verify_index(name: str, data_root: str | Path | None = None) -> Verification:
    """Check a task's index and every clip, in memory that does not grow with them where the index is a CSV.

    Args:
        name: as `evar tasks` lists them.
        data_root: folder that holds the task's own folder; None takes EVAR_DATA, then ./data.

    Raises:
        ValueError, FileNotFoundError: as `load_task`.
    """
    path = configs.find("tasks", name)
    config = configs.read(path, TaskConfig)
    if config.index_maker or config.builder:
        task = load_task(name, data_root)
        prepare(task)
        return task.verify()
    index_path = index_beside(path, config)
    config = with_classes(config, in_parts(index_path))
    check, n_clips = IndexCheck(config, on_disk=True), 0
    for rows in in_parts(index_path):
        check.add(name_segments(rows, check.where))
        n_clips += len(rows)
    check.finish()
    return verify_files(config, clips_folder(config, data_root), in_parts(index_path), n_clips)
