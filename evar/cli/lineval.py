"""Commands that compute rows and build tables from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from evar.cli.terminal import DONE, SOME_FAILED
from evar.cli.words import UsageError, takes_flags, truth
from evar.config.flag_tables import LINEVAL_FLAGS
from evar.config.messages import silence, write_text
from evar.config.own_code import call_nothing
from evar.storage.mirror import at_hand


@takes_flags(LINEVAL_FLAGS)
def lineval(encoders: str = "", tasks: str = "", **flags: Any) -> int:
    """Linear evaluation of frozen encoders: one pass over the audio, a probe per layer, one table.

    evar lineval [ENCODERS TASKS | GRID] [flags]        (the same: python lineval.py ...)

    ENCODERS and TASKS are comma lists or `all` (of the tasks, those whose index is at hand); see `evar encoders` and
    `evar tasks`. GRID is a name in config/grids or the path of such a YAML. Without arguments the embedded default grid
    runs: trained encoders and rendered sounds that come with pip packages, nothing else to download.

    Examples:
      evar lineval                                                      the default grid (minutes)
      evar lineval logmel,crepe.tiny esc10 --data_root=/data            two encoders on ESC-10
      evar lineval crepe.tiny esc10 --layers=all --data_root=/data      one row per layer, and the layer curve
      evar lineval ge2e,aisfx gm_pitch --limit=40 --dry_run             what would be done, and how long it takes
      evar lineval crepe.tiny gm_pitch --layers=conv4,conv6 --fusion=concat
      evar lineval crepe.tiny gm_pitch,spoken_words --fusion=search --export=general
      evar lineval logmel,silero_vad,aisfx esc10 --protocol=linear,knn,mteb     and how ranks move between protocols
      evar lineval logmel,silero_vad,aisfx esc10 --protocol=curve       scores against the number of labelled clips

    {flags}

    Whatever was computed is on disk: stop it whenever you like, the same command goes on where it stopped.
    Exit status: 0 all rows are there, 1 some cell failed (its reason is in the table), 2 the command line is wrong.
    """
    from evar.experiment.request import parse_requests
    from evar.experiment.resolving import resolve_requests

    out, dry_run, quiet = flags["out"], flags.pop("dry_run"), flags.pop("quiet")
    with_report, with_cost = flags.pop("report"), flags.pop("cost")
    requests = parse_requests(encoders, tasks, **flags)
    with call_nothing() if dry_run else nullcontext():
        grid = resolve_requests(requests)
    if dry_run:
        from evar.lineval.dry_run import describe

        write_text(describe(grid))
        return DONE
    from evar.lineval.engine import run
    from evar.report import describe_rank_moves, format_fusion_tables, format_terminal_table, write_tables_and_plots
    from evar.report.guard import try_to_write

    try:
        with silence(quiet):
            outcome = run(grid)
    except KeyboardInterrupt:
        folder = at_hand(out)
        try_to_write(Path(folder), lambda: write_tables_and_plots(folder))  # show the rows that are there
        raise
    folder = at_hand(out)
    written = try_to_write(Path(folder), lambda: write_tables_and_plots(folder, with_cost=with_cost))
    if with_report and written:
        written += write_page(folder, flags)
    write_text("\n" + format_terminal_table(outcome.rows, outcome.failures, Path(folder), with_cost=with_cost))
    if requests[0].fusion == "search":
        write_text("\n" + format_fusion_tables(folder))
    if len(requests) > 1:
        write_text("\n" + describe_rank_moves(folder))
    write_text(f"\n{len(outcome.rows)} rows, {outcome.n_new} of them new; {outcome.n_encoded} clips encoded")
    _tell_written(out, written)
    return SOME_FAILED if outcome.failures or not written else DONE


def write_page(folder: str | Path, flags: Mapping[str, Any]) -> list[Path]:
    """Write the page of a results folder at the end of a run; a fault is only a warning, because the rows are there.

    Args:
        folder: of the results, on this machine.
        flags: of the run, which say where sounds and vectors are.
    """
    from evar.report.guard import try_to_make
    from evar.webpage import write_report

    data_root, store = flags.get("data_root") or None, flags.get("store") or None
    return try_to_make("report.html", lambda: [write_report(folder, data_root=data_root, store=store)])


def compare(out: str = "results", filter: str = "", baseline: str = "", published: str = "", cost: bool = False) -> int:
    """Build tables and plots again from the result files, without torch; test encoders against each other.

    evar compare [--out=results] [flags]

    Examples:
      evar compare                                                    all rows: table.*, layers.*, plots
      evar compare --filter="encoder=byol*|ast,task=esc10,protocol=linear,layers=default"      some of them
      evar compare --baseline=logmel                                  every difference to logmel, with interval and p
      evar compare --published=all                                    beside the numbers of papers
      evar compare --published=my_paper.yaml                          and of a file of yours

    Best scores are bold, and those underlined (~ in the terminal) are not significantly worse: paired test on the same
    clips, Holm's correction over all pairs of rows of the table. Other protocols, their versions and limits never share a
    table, versions, metrics and indexes of a task never a column; where rows differ so, a sentence says which filter leaves
    one. table.* and layers.* always hold all rows; what the flags ask for is in compare.md, .csv, .tex and .json,
    baseline.csv, and ranks.png (mean ranks with critical differences, from 3 rows and 5 tasks on).

    Flags:
      --filter=COLUMN=PATTERN|PATTERN,...   encoder, task, protocol, protocol_version, layers (a name, or default), fusion,
                                            metric, weights, seed, limit (a number, or none), task_version, index (hash);
                                            * and ? as in file names
      --baseline=ENCODER[:LAYERS]           paired differences to it, each with its 95 % interval and p
      --published=all|NAME,FILE.yaml,...    rows of config/published or of a file, marked, and what ours is above them
      --cost                                columns for parameters, seconds per second of audio, width, bytes per clip
      --out=DIR                             results folder                            (default: results)
    """
    from evar import report, results
    from evar.report.guard import try_to_write
    from evar.report.tables.filters import parse_filter
    from evar.report.tables.published import load_published

    parse_filter(filter), load_published(published)  # wrong words fail before anything is written
    folder = at_hand(out)
    if not results.load_all(Path(folder)):
        raise UsageError(f"no results below {out}/runs; run `evar lineval` first or name the folder with --out")
    with_cost = truth(cost, "cost")
    written = try_to_write(Path(folder), lambda: report.write_tables_and_plots(folder, with_cost=with_cost))
    found = report.compare(folder, filter, baseline, published, write=bool(written), cost=with_cost)
    write_text(found.text)
    _tell_written(out, [*written, *found.files])
    return DONE if written else SOME_FAILED


def _tell_written(out: str, files: Sequence[Path]) -> None:
    if files:
        write_text(f"written to {out}: " + ", ".join(path.name for path in files))


def rerun(
    run: str,
    data_root: str = "",
    store: str = "",
    device: str = "auto",
    out: str = "",
    anyway: bool = False,
    trust_code: bool = False,
) -> int:
    """Compute one row of a table again, from its result file alone, and say whether the score is the same.

    evar rerun results/runs/ID.json [flags]

    Encoder, weights, layers, fusion, task, protocol, seed and every setting come from the file. If the checkpoint, the
    index of the task or the protocol are no longer those of the row, it says which and computes nothing. Vectors come from
    the feature store where they are there; an empty --store encodes the clips again, too. A record of `evar robust`
    (results/robustness/ID.json) is computed again in the same way.

    Flags:
      --data_root=DIR  folder that holds the task's folder            (default: $EVAR_DATA, ./data)
      --store=DIR      where features live                            (default: $EVAR_STORE, the user's cache)
      --device=auto|cpu|cuda|mps                                      (default: auto)
      --out=DIR        keep the new row there                         (default: it is only printed)
      --anyway         run an encoder of your own although its file has changed since; the file that the row was made
                       with is kept in results/sources
      --trust_code     import the encoder or probe of an author's own that the file names (module:name, or the path of a
                       file); without it a file, perhaps a stranger's, runs nothing but evar's code and your configuration

    Exit status: 0 the same score to the last printed digit, 1 another, 2 it cannot be run again.
    """
    if Path(run).parent.name == "robustness":
        return _measure_again(run, data_root, store, device)
    from evar.rerun import rerun as again

    old, new, n_changed = again(
        run,
        data_root or None,
        store or None,
        device,
        at_hand(out) or None,
        truth(anyway, "anyway"),
        truth(trust_code, "trust_code"),
    )
    same = f"{100 * old.score:.1f}" == f"{100 * new.score:.1f}"
    write_text(
        f"{old.id}\n  then {100 * old.score:.4f} %, now {100 * new.score:.4f} %: {'the same' if same else 'DIFFERENT'}"
    )
    if n_changed is not None:
        write_text(f"  {n_changed} of {new.n_test} predictions changed")
    return DONE if same else SOME_FAILED


def _measure_again(path: str, data_root: str, store: str, device: str) -> int:
    """Compute a record of `evar robust` again, and say whether the altered score is the same."""
    from evar.robustness.again import measure_again

    old, new, n_changed = measure_again(path, data_root or None, store or None, device)
    is_same = f"{100 * old.score:.1f}" == f"{100 * new.score:.1f}"
    write_text(
        f"{old.id}\n  altered: then {100 * old.score:.4f} %, now {100 * new.score:.4f} %: "
        f"{'the same' if is_same else 'DIFFERENT'}\n  {n_changed} of {len(new.predictions) * new.n_test} predictions changed"
    )
    return DONE if is_same else SOME_FAILED
