"""Commands that put results together, pack them for others, and check what others packed."""

from __future__ import annotations

import sys
from pathlib import Path

from evar.cli.terminal import DONE, SOME_FAILED
from evar.cli.words import UsageError, whole
from evar.config.messages import write_text
from evar.storage.atomic import write_atomic


def merge(*folders: str, out: str = "") -> int:
    """Put several results folders together in one.

    evar merge FOLDER [FOLDER ...] --out=DIR

    Examples:
      evar merge lab_a lab_b --out=all

    A row that several folders hold must have the same score and predictions; if not, the row is named and is not in DIR.
    DIR/origins.json says where each row comes from. Tables and plots are made again.

    Exit status 1 if rows contradict each other.
    """
    from evar import report
    from evar.sharing import merge_results

    if not folders or not out:
        raise UsageError("evar merge needs results folders and --out=DIR: evar merge lab_a lab_b --out=all")
    merged = merge_results(folders, out)
    report.write_tables_and_plots(out)
    write_text(f"{out}: {merged.n_rows} rows; {merged.n_same} of them in several folders, with the same numbers")
    for conflict in merged.conflicts:
        write_text(f"CONFLICT, left out: {conflict}", sys.stderr)
    return SOME_FAILED if merged.conflicts else DONE


def export_results(out: str = "results", output: str = "bundle.zip", filter: str = "", format: str = "bundle") -> int:
    """Pack results into one file that others can check: rows, predictions, YAML files, hashes; no sounds.

    evar export-results [RESULTS] [-o bundle.zip] [--filter=...] [--format=bundle|mteb|hear]

    Examples:
      evar export-results results -o ours.zip
      evar export-results results -o ours.zip --filter="task=esc10,protocol=linear"
      evar audit ours.zip                                      what others do with it
      evar export-results results -o for_mteb --format=mteb    scores in MTEB's files; it says what is lost

    Label curves and records of robustness are packed with their predictions. Absolute paths become file names; the names
    of the user and the machine are taken out.

    Flags:
      --filter=COLUMN=PATTERN|PATTERN,...   which rows, as for evar compare          (default: all)
      --format=bundle|mteb|hear             one file with everything, or score files of another toolkit in a folder
      -o FILE, --output=FILE                the file or folder to write              (default: bundle.zip)
    """
    from evar.report.tables.filters import parse_filter, select_rows
    from evar.results import load_all
    from evar.sharing import write_bundle
    from evar.sharing.formats import FORMATS, LOST, write_scores

    if format not in FORMATS:
        raise UsageError(f"--format must be one of {', '.join(FORMATS)}, got {format!r}")
    if format != "bundle":
        rows = load_all(Path(out))
        chosen = select_rows(rows, parse_filter(filter)) if filter else rows
        if not chosen:
            raise UsageError(f"no such results below {out}/runs; run `evar lineval` first or change --filter")
        paths = write_scores(chosen, output, format)
        write_text(f"written: {len(paths)} files in {output}\nlost, as the format has no field for it: {LOST[format]}")
        return DONE
    notes = write_bundle(out, output, filter)
    for note in notes:
        write_text(f"NOTE: {note}")
    write_text(f"written: {output} ({Path(output).stat().st_size / 1e6:.2f} MB); check it with: evar audit {output}")
    return DONE


def import_scores(folder: str, output: str = "scores.yaml") -> int:
    """Read MTEB's or HEAR's score files as published numbers, to be shown beside yours.

    evar import-scores FOLDER [-o scores.yaml]

    Examples:
      evar import-scores mteb_results -o mteb.yaml
      evar compare --published=mteb.yaml

    The files hold no predictions, so that nothing can be tested or checked. Say in the YAML whose numbers they are.
    """
    import yaml

    from evar.sharing.formats import read_scores

    data, notes = read_scores(folder)
    data["name"] = Path(output).stem
    write_atomic(Path(output), yaml.safe_dump(data, sort_keys=False, allow_unicode=True).encode("utf-8"))
    for note in notes:
        write_text(f"NOTE: {note}")
    write_text(
        f"written: {output}, {len(data['rows'])} models on {len(data['tasks'])} tasks; "
        f"show them with: evar compare --published={output}"
    )
    return DONE


def audit(
    bundle: str,
    sample: str = "10",
    seed: str = "0",
    data_root: str = "",
    store: str = "",
    device: str = "auto",
    out: str = "",
) -> int:
    """Check a bundle of results: hashes, scores, intervals and tests; compute a sample of its rows again.

    evar audit BUNDLE [flags]

    Examples:
      evar audit ours.zip                                      ten rows are computed again
      evar audit ours.zip --sample=0                           only what follows from the predictions; needs no torch
      evar audit ours.zip --sample=50 --data_root=/data

    Every difference is named. A row that names code of its author is never run. The certificate is written as Markdown and
    as JSON.

    Flags:
      --sample=N       rows that are computed again, from an empty feature store     (default: 10)
      --seed=N         of the draw of these rows                                     (default: 0)
      --data_root=DIR  folder that holds the tasks' folders                          (default: $EVAR_DATA, ./data)
      --store=DIR      use the vectors of this feature store where it has them       (default: an empty one)
      --device=auto|cpu|cuda|mps                                                     (default: auto)
      --out=STEM       STEM.md and STEM.json                                         (default: the bundle's name)

    Exit status: 0 nothing differs, 1 something does, 2 the file is no bundle.
    """
    from evar.sharing.auditing import audit_bundle
    from evar.sharing.certificate import format_certificate, format_certificate_json, format_summary

    n_rows = whole(sample, "sample")
    if n_rows is None or n_rows < 0:
        raise UsageError(f"--sample must be a whole number >= 0, got {sample}")
    report = audit_bundle(
        bundle,
        sample=n_rows,
        seed=whole(seed, "seed") or 0,
        data_root=data_root or None,
        store=store or None,
        device=device,
    )
    stem = Path(out) if out else Path(bundle).with_suffix("")
    texts = {".md": format_certificate(report), ".json": format_certificate_json(report)}
    paths = [stem.with_name(f"{stem.name}.certificate{suffix}") for suffix in texts]
    for path, text in zip(paths, texts.values(), strict=True):
        write_atomic(path, text.encode("utf-8"))
    write_text(format_summary(report))
    write_text(f"written: {paths[0]} and {paths[1].name}")
    return DONE if report.is_clean else SOME_FAILED


def leaderboard(*sources: str, out: str = "site") -> int:
    """Build a static site from the bundles of many people, with a mark on every checked row.

    evar leaderboard BUNDLE|RESULTS [...] [--out=site]

    Examples:
      evar leaderboard lab_a.zip lab_b.zip --out=site
      evar leaderboard bundles/*.zip results --out=site

    Every bundle is checked first, as `evar audit --sample=0` does it; rows that differ are named and not shown. A
    certificate of `evar audit` beside a bundle marks the rows that were computed again. It counts only if you made it or
    trust who did. The site needs no server: index.html opens from the disk.

    Exit status 1 if something had to be left out.
    """
    from evar.sharing.leaderboard import write_leaderboard

    if not sources:
        raise UsageError("evar leaderboard needs bundles or results folders: evar leaderboard lab_a.zip lab_b.zip")
    made = write_leaderboard(sources, out)
    for fault in made.faults:
        write_text(f"! {fault}", sys.stderr)
    write_text(f"written: {made.page} with {made.n_rows} rows of {len(sources)} bundles and folders")
    return SOME_FAILED if made.faults else DONE
