"""The command that makes tasks of one's own."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from evar.cli.terminal import DONE, SOME_FAILED
from evar.cli.words import UsageError, decimal, truth, whole
from evar.config.messages import write_text

if TYPE_CHECKING:
    from evar.data.new_task import NewTask


def prepare(task: str, source: str = "", data_root: str = "", verify: str = "true", keep_archives: bool = False) -> int:
    """Fetch a task's clips, or point at a copy that you have; unpack, index and check them.

    evar prepare TASK [--from=FOLDER] [flags]

    Examples:
      evar prepare esc50 --data_root=/data                  download, unpack, check
      evar prepare voxceleb1 --from=/corpora/VoxCeleb1      a copy that you have: it is linked, not copied
      evar prepare gm_pitch                                 an embedded task: its sounds are rendered

    A download that breaks off goes on where it stopped. Archives are checked (by counts of clips, and by hash if one is
    published), unpacked without following links or leaving their folder, and deleted. Sounds are not changed: nothing is
    resampled. Tasks that need a licence or registration say what to get.

    Flags:
      --from=FOLDER          the task's folder, its top folder, or one that holds it
      --data_root=DIR        folder that holds the tasks' folders      (default: $EVAR_DATA, ./data)
      --verify=true|false    decode every clip at the end              (default: true)
      --keep_archives        leave the archives in DATA_ROOT/.downloads
    """
    from evar.data.prepare import prepare_task

    done = prepare_task(
        task,
        data_root or None,
        source or None,
        verify=truth(verify, "verify"),
        keep_archives=truth(keep_archives, "keep_archives"),
    )
    write_text(f"{task}: {done.what}; {len(done.task)} clips in {done.folder}")
    found = done.verification
    if found is None:
        write_text(f"next: evar verify {task}")
        return DONE
    for path, reason in list(found.undecodable.items())[:10]:
        write_text(f"  unusable: {path}: {reason}")
    for path in found.wrong_checksum[:10]:
        write_text(f"  altered: {path}")
    n_bad = found.n_bad
    write_text(
        f"  {found.n_clips - n_bad} of {found.n_clips} clips are whole, {found.seconds / 3600:.1f} hours of audio"
    )
    return DONE if found.ok else SOME_FAILED


def task(
    action: str,
    name: str,
    folder: str = "",
    csv: str = "",
    parquet: str = "",
    label: str = "label",
    group: str = "",
    kind: str = "multiclass",
    clip_seconds: str = "",
    separator: str = ";",
    folds: str = "",
    title: str = "",
    licence: str = "not stated",
    to: str = "",
    data_root: str = "",
    seed: str = "0",
    replace: bool = False,
    class_level: str = "",
    annotations: str = "",
) -> int:
    """Make a task of your own sounds: a folder with a sub-folder for each class, a table, annotations, or parquet files.

    evar task new NAME --folder=DIR [flags]

    Examples:
      evar task new my_birds --folder=~/birds                         class = sub-folder; a split is proposed and written
      evar task new calls --folder=~/calls --csv=calls.csv            path, label[, split | fold][, group]
      evar task new birds --folder=~/field --annotations=~/selections     Raven tables or Audacity labels, one for a sound
      evar task new tags --folder=~/fx --csv=tags.csv --kind=multilabel --separator=,
      evar task new scenes --folder=~/scenes --parquet=~/hub/scenes    a copy of a Hugging Face data set (needs pyarrow)
      evar lineval logmel,crepe.tiny my_birds --layers=all            then

    Where the table names no split, one is drawn by group and label and written into the CSV, where you can read and change
    it; it is yours, and no published one. Clips of one recording should share a group. Nothing is copied, but for sounds in
    parquet files, which are written below --folder as they are; files named train-..., validation-... and test-... tell
    the split.

    Rows of a table with start and end, in seconds, are parts of files: each is a clip of its own, and the parts of one file
    stay together in a split, unless a column group says otherwise. With --kind=events they are the events of whole files.

    Flags:
      --csv=FILE             instead of class folders; CSV or JSON Lines; columns path, label[, start, end][, split | fold]
                             [, group]
      --annotations=FILE|DIR Raven selection tables or Audacity label files, named like their sounds (rec.selections.txt or
                             rec.txt of rec.wav); also CSV or JSON Lines
      --label=COLUMN         of a table or of parquet files: which column is the class     (default: label; of a Raven table
                             the one that is no column of Raven's)
      --parquet=FILE|DIR     sounds and labels in parquet files; --group=COLUMN of them
      --kind=multiclass|multilabel|regression|events                           (default: multiclass); the label of a clip
                             with events: "0.5-1.25 dog;3-3.5 cat", in seconds
      --clip_seconds=X       use the first X seconds of longer files           (default: whole files)
      --separator=TEXT       between the labels of a clip, for multilabel      (default: ;)
      --folds=N              propose N folds in place of train, valid and test
      --group=alike          clips that sound alike share a group, as files of one content always do
      --class_level=N        which folder on a path is the class, 1 for the first (default: the first that is no split)
      --title=TEXT --licence=TEXT   shown to people who read the task
      --to=DIR               configuration folder                              (default: the user's own)
      --data_root=DIR        write the folder relative to it                   (default: $EVAR_DATA; else absolute)
      --seed=N               of the proposed split                             (default: 0)
      --replace              overwrite a task of that name there
    """
    from evar.config.folders import user_folder
    from evar.data.new_task import TaskOptions, new_task

    if action != "new":
        raise UsageError(f"evar task knows new, got {action!r}: evar task new NAME --folder=DIR")
    if not folder:
        raise UsageError("evar task new needs --folder=DIR, where the sounds lie")
    if parquet:
        from evar.data.parquet import unpack_parquet

        if csv:
            raise UsageError("give --csv or --parquet, not both")
        column = "" if group == "alike" else group
        csv, separator = str(unpack_parquet(parquet, folder, label, column)), ";"
    elif csv and annotations:
        raise UsageError("give --csv or --annotations, not both")
    elif group not in ("", "alike"):
        raise UsageError(
            f"--group must be alike, got {group!r}; a column of the table that is named group is read anyway"
        )
    options = TaskOptions(
        kind=kind,
        clip_seconds=decimal(clip_seconds, "clip_seconds"),
        separator=separator,
        n_folds=whole(folds, "folds") or 0,
        title=title,
        licence=licence,
        seed=whole(seed, "seed") or 0,
        group_alike=group == "alike",
        class_level=whole(class_level, "class_level") or 0,
        label_column="" if parquet or label == "label" else label,
    )
    root = data_root or os.environ.get("EVAR_DATA") or None
    table, again = csv or annotations or None, truth(replace, "replace")
    made = new_task(name, folder, table, options, to=to or user_folder(), data_root=root, replace=again)
    _report_new_task(name, made)
    return DONE


def _report_new_task(name: str, made: NewTask) -> None:
    one = made.task
    what = f"{len(one.config.classes)} classes" if one.config.classes else "numbers"
    write_text(f"{name}: {len(one)} clips, {what}, {len(set(one.groups))} groups; {made.yaml} and {made.csv.name}")
    part = one.config.part
    write_text("  " + ", ".join(f"{key} {n}" for key, n in sorted(one.index[part].value_counts().items())))
    for note in made.notes:
        write_text(f"  NOTE: {note}")
    if made.proposed:
        write_text(f"  NOTE: the {part} is a proposal: {made.proposed}")
    if made.n_joined:
        write_text(
            f"  WARNING: {made.n_joined} clips are identical to others or sound alike; they share groups, and are listed in "
            f"{made.pairs_csv}"
        )
    if "group" not in one.index or (one.index["group"] == one.index["path"]).all():
        write_text(
            "  NOTE: no groups are known; if clips come from one recording, give a column group, or scores are too high"
        )
    for first, second in made.duplicates[:5]:
        write_text(f"  WARNING: {first} and {second} are the same sound in different {part}s")
    if len(made.duplicates) > 5:
        write_text(f"  WARNING: ... and {len(made.duplicates) - 5} more such pairs; all are in {made.pairs_csv}")
    for first, second in (made.alike or [])[:5]:
        write_text(
            f"  WARNING: {first} and {second} sound alike in different {part}s; drop the copy, or say --group=alike"
        )
    if made.alike and len(made.alike) > 5:
        write_text(f"  WARNING: ... and {len(made.alike) - 5} more such pairs; all are in {made.pairs_csv}")
    if made.alike is None:
        write_text("  NOTE: too many clips to look for ones that sound alike; only identical files were looked for")
    for problem in made.problems:
        write_text(f"  WARNING: {problem}")
    if made.left_out_csv:
        write_text(f"  NOTE: files that were left out, with the reason, are listed in {made.left_out_csv}")
    write_text(f"next: evar verify {name}; evar lineval logmel {name}")


def fingerprint(folder: str, out: str = "corpus.fp") -> int:
    """Write the fingerprints of a training corpus into one file, to look for a task's clips in it.

    evar fingerprint FOLDER [--out=corpus.fp]

    Examples:
      evar fingerprint /data/AudioSet --out=audioset.fp
      evar verify esc50 --against=audioset.fp                   names the clips that occur in both

    The file holds hashes and 32-bit words only: no names, and no sound can be made from it. It takes about 3.5 kB for ten
    seconds. Sounds that cannot be read are named and left out.

    Flags:
      --out=FILE             the file to write                                (default: corpus.fp)
    """
    from evar.data.corpus_prints import write_corpus_prints

    written = write_corpus_prints(folder, out)
    write_text(
        f"{out}: {written.n_sounds} sounds, {written.seconds / 3600:.2f} hours, {written.n_bytes / 1e6:.1f} MB; "
        f"{len(written.bad)} could not be read"
    )
    for path, reason in list(written.bad.items())[:10]:
        write_text(f"  unusable: {path}: {reason}")
    if len(written.bad) > 10:
        write_text(f"  ... and {len(written.bad) - 10} more")
    if written.left_out:
        write_text(f"  {written.left_out}")
    return SOME_FAILED if written.bad else DONE
