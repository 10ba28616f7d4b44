"""The model card of a classifier: what a person must know before using it, as Markdown beside the file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evar.classifiers.record import ClassifierRecord, HeadFacts
from evar.config.plain_text import make_printable
from evar.storage.atomic import write_atomic

#: classes that the card lists; of more, the largest and the smallest
_SHOWN = 60
#: share of the clips of a class below which a class is called small
_FEW = 10


def write_card(path: Path, record: ClassifierRecord) -> Path:
    """Write the model card of a classifier file beside it, `NAME.md`.

    Args:
        path: of the classifier file.
        record: what it says.

    Returns:
        Path of the card.

    Raises:
        OSError: if it cannot be written.
    """
    card = path.with_suffix(".md")
    write_atomic(card, describe_classifier(record, path.name).encode())
    return card


def describe_classifier(record: ClassifierRecord, name: str) -> str:
    """Return the model card of a classifier as Markdown.

    Args:
        record: what the file says.
        name: of the file.
    """
    parts = [
        [f"# {_clean(record.task.title or record.task.name)}: classifier on {_clean(record.encoder.name)}"],
        _warn_of_random(record),
        _describe_making(record, name),
        _list_scores(record),
        _list_clips(record),
        _list_thresholds(record),
        _list_licences(record),
        _show_use(record, name),
        _list_limits(record),
    ]
    return "\n\n".join("\n".join(lines) for lines in parts if lines) + "\n"


def _clean(text: object) -> str:
    """Make one line that Markdown shows as it is: labels and licences come from strangers."""
    shown = make_printable(text, one_line=True).replace("\\", "\\\\")
    for mark, safe in (
        ("|", "\\|"),
        ("<", "&lt;"),
        (">", "&gt;"),
        ("*", "\\*"),
        ("_", "\\_"),
        ("[", "\\["),
        ("`", "\\`"),
    ):
        shown = shown.replace(mark, safe)
    return shown


def _warn_of_random(record: ClassifierRecord) -> list[str]:
    if not record.encoder.is_random:
        return []
    return ["**The encoder has random weights: it was never trained. Use this classifier as a baseline only.**"]


def _describe_making(record: ClassifierRecord, name: str) -> list[str]:
    encoder, feature, task, head = record.encoder, record.feature, record.task, record.heads[0]
    layers = ", ".join(_clean(layer) for layer in feature.layers)
    fused = "" if feature.fusion == "none" else f" ({_clean(feature.fusion)})"
    cut = "whole files" if record.clip.seconds is None else f"the first {record.clip.seconds:g} s of a file"
    if record.clip.crop != "head":
        cut = f"{record.clip.seconds:g} s at random of a file"
    if record.clip.pad == "zero_end":
        cut += ", shorter ones filled with silence"
    n = f"{head.n_train} training and {head.n_valid} validation clips"
    if len(record.heads) > 1:
        n += f" in the first of {len(record.heads)} rounds"
    limited = "" if task.limit is None else f" (at most {task.limit} clips of each part were used)"
    return [
        f"`{name}` holds {_clean(record.rule)}.",
        "",
        f"- **Vectors**: encoder `{encoder.name}` (weights {_clean(encoder.weights_label)}, SHA-256 "
        f"`{encoder.weights_sha256[:16]}`; trained on {_clean(encoder.trained_on) or 'unknown data'}), "
        f"layer {layers}{fused}.",
        f"- **Trained on**: task `{task.name}`, version {_clean(task.version)}, index `{task.index_sha256[:10]}`: {n}"
        f"{limited}.",
        f"- **Clips**: {cut}, at {encoder.sample_rate} Hz, mono.",
        f"- **Probe**: protocol `{record.protocol.get('name', '')}`{_describe_choice(head)}.",
    ]


def _describe_choice(head: HeadFacts) -> str:
    if head.strength is not None:
        return f", strength {head.strength:g} chosen on validation clips"
    if head.chosen:
        return ", chosen on validation clips: " + ", ".join(f"{_clean(k)} {_clean(v)}" for k, v in head.chosen.items())
    return ""


def _list_scores(record: ClassifierRecord) -> list[str]:
    score, task = record.score, record.task
    lines = [
        "## Score",
        "",
        f"**{_clean(task.metric)} {100 * score.score:.1f} %** ({_format_interval(record)}"
        + (f"; chance {100 * score.chance:.1f} %" if score.chance is not None else "")
        + f"): {_clean(score.of)}.",
    ]
    if len(score.round_scores) > 1:
        lines += ["", "Rounds: " + ", ".join(f"{100 * one:.1f} %" for one in score.round_scores) + "."]
    return [*lines, "", f"{_clean(score.interval_method)}."]


def _format_interval(record: ClassifierRecord) -> str:
    if len(record.score.interval) != 2:
        return "no interval"
    low, high = record.score.interval
    return f"95 % interval {100 * low:.1f} to {100 * high:.1f} %"


def _list_clips(record: ClassifierRecord) -> list[str]:
    head = record.heads[0]
    if not head.clips_per_class:
        return []
    counts = sorted(((str(k), int(v)) for k, v in head.clips_per_class.items()), key=lambda pair: (-pair[1], pair[0]))
    left_out = len(counts) - _SHOWN
    rows = counts if left_out <= 0 else [*counts[: _SHOWN // 2], *counts[-_SHOWN // 2 :]]
    which = f", round {_clean(head.name)}" if len(record.heads) > 1 else ""
    lines = [f"## Training and validation clips of each class{which}", "", "| class | clips |", "|---|---|"]
    lines += [f"| {_clean(name)} | {n} |" for name, n in rows]
    return lines if left_out <= 0 else [*lines, "", f"{left_out} classes in between are not shown; the file has all."]


def _list_thresholds(record: ClassifierRecord) -> list[str]:
    head = record.heads[0]
    if not head.thresholds:
        return []
    lines = [
        "## Thresholds",
        "",
        "From these probabilities on a clip has a label; each gives the best F1 on validation clips.",
    ]
    lines += ["", "| label | threshold | F1 on validation clips |", "|---|---|---|"]
    rows = zip(record.task.classes, head.thresholds, head.threshold_scores, strict=True)
    for name, threshold, f1 in rows:
        shown = "no validation clip has it" if f1 is None else f"{100 * f1:.1f} %"
        lines.append(f"| {_clean(name)} | {threshold:.3f} | {shown} |")
    return lines


def _list_licences(record: ClassifierRecord) -> list[str]:
    return [
        "## Licences",
        "",
        f"- Encoder's checkpoint: {_clean(record.encoder.licence) or 'unknown; ask its authors'}",
        f"- Training data ({_clean(record.task.name)}): {_clean(record.task.licence) or 'unknown'}"
        + (f", {_clean(record.task.source)}" if record.task.source else ""),
        "",
        "The checkpoint is not in the file; its licence holds for whoever uses the classifier.",
    ]


def _show_use(record: ClassifierRecord, name: str) -> list[str]:
    return [
        "## Use",
        "",
        "```python",
        "import evar",
        f'classifier = evar.load_classifier("{name}")',
        'table = classifier.predict(["a.wav", "b.wav"])',
        "```",
        "",
        f"In a shell: `evar predict {name} recordings/ -o table.csv`",
    ]


def _list_limits(record: ClassifierRecord) -> list[str]:
    task, head = record.task, record.heads[0]
    what = "classes" if task.kind == "multiclass" else "labels"
    limits = []
    if task.classes:
        limits.append(
            f"It knows {len(task.classes)} {what} and nothing else: every sound gets one of their probabilities."
        )
    limits.append(
        "The score holds for clips like those of the task. Other microphones, places, speakers or lengths may give "
        "less; test it on clips of your own before you rely on it."
    )
    few = [name for name, n in head.clips_per_class.items() if int(n) < _FEW]
    if few:
        shown = ", ".join(_clean(name) for name in few[:10]) + (f" and {len(few) - 10} more" if len(few) > 10 else "")
        limits.append(f"Fewer than {_FEW} clips were there for: {shown}.")
    if task.kind != "regression":
        limits.append("Probabilities were not calibrated on other data.")
    if task.kind == "multilabel":
        limits.append(_explain_thresholds(record))
    if not all(one.converged for one in record.heads):
        limits.append("A probe stopped before its optimum.")
    return ["## Limits", "", *(f"- {limit}" for limit in limits)]


def _explain_thresholds(record: ClassifierRecord) -> str:
    refit: Any = record.protocol.get("refit")
    if refit != "train_and_valid":
        return "Thresholds were chosen on the validation clips, which the probe was not fitted on."
    return (
        "Thresholds were chosen with a probe that was fitted without the validation clips. The probe in the file has seen "
        "these clips too, so that its probabilities may lie a little further apart."
    )


def list_summary(record: ClassifierRecord) -> Sequence[str]:
    """Return lines for the terminal: what a classifier file is.

    Args:
        record: what the file says.
    """
    layers = "+".join(record.feature.layers)
    lines = [
        f"{record.task.name} on {record.encoder.name} {layers}: {record.task.metric} {100 * record.score.score:.1f} % "
        f"({_format_interval(record)}), {record.score.of}"
    ]
    if record.encoder.is_random:
        lines.append("NOTE: the encoder has random weights; its predictions are a baseline only")
    return lines
