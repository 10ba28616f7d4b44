"""`evar.search`: the sounds of a file of vectors that are most like a sound, several examples, or a sentence."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evar.applying.encoders import EncoderRequest, load_same_encoder
from evar.applying.feature_table import FeatureTable
from evar.applying.ranking import join_examples, rank_rows, require_index
from evar.audio.reading import ClipPolicy, inspect, read_clip
from evar.audio.segments import Segment, parse_address
from evar.config.applying_flags import SEARCH_FLAGS
from evar.config.flags import read_flags
from evar.config.messages import silence

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from evar.encoders.base import Encoder


@dataclass(frozen=True)
class _Example:
    """One example: a row of the table, or a sound or sentence that must be encoded."""

    row: int | None = None
    audio: Any = None
    text: str = ""


def search(
    features: str | os.PathLike[str],
    query: Any = None,
    like: Sequence[Any] = (),
    unlike: Sequence[Any] = (),
    **flags: Any,
) -> pd.DataFrame:
    """Find the rows of a file of vectors that are most like some examples, by cosine.

    Several examples become one direction: the mean of the positive ones, each scaled to length 1, minus `unlike_weight`
    (0.5) times the mean of the negative ones. The search is exact and reads the file block by block.

    Args:
        features: file that `evar embed` wrote.
        query: the name of a row of it (its path, or the end of it; of a window followed by "#t=SECONDS"), else a sound as
            `evar.embed` takes it, or a part of a file, "PATH#t=START,END", which is encoded as the file says. A row
            is not encoded again.
        like: further positive examples.
        unlike: negative examples.
        **flags: as `evar search --help` lists them, such as k=10, text="dog barking", index="faiss".

    Returns:
        The nearest rows, nearest first: `rank`, `similarity` (cosine, -1..1), and what the file says of each row: `path`,
        with windows `start` and `end` in seconds, `seconds`, and the columns that were carried along. Rows that are
        examples themselves are left out.

    Raises:
        FileNotFoundError: if a file is not there.
        ValueError: if there is no example, a name is not clear, the encoder's weights are others than those of the file, or
            its vectors do not lie in a space of texts.

    Example:
        >>> search("features.parquet", "dog.wav", k=5)[["path", "similarity"]]  # doctest: +SKIP
    """
    import pandas as pd

    words = read_flags(SEARCH_FLAGS, flags, "evar.search")
    k, weight = int(words["k"]), float(words["unlike_weight"])
    if k < 1 or not 0 <= weight < float("inf"):
        raise ValueError(f"k must be at least 1 and unlike_weight 0 or more, got {k} and {weight:g}")
    require_index(words["index"])
    table = FeatureTable(os.fspath(features), words["layer"] or "")
    wanted = [*([] if query is None else [query]), *like]
    positive = [_find_example(table, one) for one in wanted]
    positive += [_Example(text=words["text"])] if words["text"] else []
    negative = [_find_example(table, one) for one in unlike]
    if not positive:
        raise ValueError("expected a query, --like or --text: an example of what is looked for; got none")
    with silence(words["quiet"]):
        vectors = _read_examples(table, [*positive, *negative], words)
    direction = join_examples(vectors[: len(positive)], vectors[len(positive) :], weight)
    own = {example.row for example in (*positive, *negative) if example.row is not None}
    found = rank_rows(table, direction, k, own, words["index"])
    rows = [
        {"rank": rank, "similarity": cosine, **facts}
        for rank, ((_, cosine), facts) in enumerate(
            zip(found, table.describe_rows([row for row, _ in found]), strict=True), start=1
        )
    ]
    return pd.DataFrame(rows, columns=["rank", "similarity", *table.facts])


def _find_example(table: FeatureTable, one: Any) -> _Example:
    if not isinstance(one, str | os.PathLike):
        return _Example(audio=one)
    name = os.fspath(one)
    row = table.find_row(str(name))
    if row is not None:
        return _Example(row=row)
    if os.path.isfile(name):
        return _Example(audio=name)
    address = parse_address(str(name))
    if address and os.path.isfile(address[0]):
        return _Example(audio=Segment(Path(address[0]), address[1], address[2]))
    raise FileNotFoundError(
        f"{name!r} is neither a row of {table.path} nor a sound file here; rows are named by their paths"
        + (", windows by PATH#t=SECONDS" if table.has_times else "")
    )


def _read_examples(table: FeatureTable, examples: Sequence[_Example], words: dict[str, Any]) -> NDArray[np.float32]:
    """Return the vectors of the examples, (examples, width): rows of the table as they are, the rest encoded now."""
    found = np.zeros((len(examples), table.width), np.float32)
    rows = {at: one.row for at, one in enumerate(examples) if one.row is not None}
    if rows:
        found[list(rows)] = table.read_vectors(list(rows.values()))
    if len(rows) == len(examples):
        return found
    encoder = _load_encoder(table, words)
    sounds = {at: one.audio for at, one in enumerate(examples) if one.audio is not None}
    texts = {at: one.text for at, one in enumerate(examples) if one.text}
    if texts:
        found[list(texts)] = _embed_texts(table, encoder, list(texts.values()))
    if sounds:
        found[list(sounds)] = _embed_sounds(table, encoder, list(sounds.values()))
    return found


def _load_encoder(table: FeatureTable, words: dict[str, Any]) -> Encoder:
    meta = table.meta
    given, name = words["encoder"], str(words["encoder"] or meta["encoder"])
    stats = meta.get("norm_stats")
    request = EncoderRequest(
        file=str(table.path),
        name=name,
        weights="random" if meta["weights"] == "random" else None,
        weights_label=str(meta["weights"]),
        weights_sha256=str(meta["weights_sha256"]),
        options=dict(meta["options"]),
        norm_stats=None if stats is None else (float(stats[0]), float(stats[1])),
        again=f"embed the sounds again: evar embed {name} SOUNDS -o {table.path.name}",
    )
    trust = bool(words["trust_code"]) or bool(given)  # a name that the user types is the user's own
    return load_same_encoder(request, words["weights"], words["device"], trust_code=trust)


def _embed_sounds(table: FeatureTable, encoder: Encoder, sounds: Sequence[Any]) -> NDArray[np.float32]:
    from evar.extraction.embed import embed

    layers, fusion, pooling = _read_recipe(table, encoder)
    audio = [_read_part(one, encoder.sample_rate) if isinstance(one, Segment) else one for one in sounds]
    made: Any = embed(encoder, audio, layers, fusion, pooling=pooling, errors="raise")
    return np.asarray(made if fusion else made[table.feature], np.float32)


def _read_part(part: Segment, sample_rate: int) -> NDArray[np.float32]:
    return read_clip(part, inspect(part), ClipPolicy(seconds=None), sample_rate)


def _read_recipe(table: FeatureTable, encoder: Encoder) -> tuple[list[str], str | None, str | None]:
    """Read the layers, fusion and pooling that make the vectors of the file; None for what the encoder does by itself.

    Raises:
        ValueError: if the encoder here cannot make them.
    """
    from evar.encoders.pooling import describe_pooling
    from evar.exporting.recipe import Recipe

    meta = table.meta
    layers = [str(name) for name in meta["layers"]]
    fusion = None if meta["fusion"] == "none" else str(meta["fusion"])
    poolings = {name: str(how) for name, how in meta["pooling"].items()}
    own = {name: describe_pooling(encoder.layer(name).pooling) for name in layers}
    pooling = None if poolings == own else next(iter(poolings.values()))
    if pooling is not None and (len(set(poolings.values())) > 1 or ":" in pooling):
        raise ValueError(
            f"{table.path} was pooled by {poolings}, which the encoder here does not do; name rows of the file as "
            "examples, or embed the sounds again"
        )
    made = Recipe.of(encoder, layers, fusion, pooling).features
    if made.get(table.feature) != table.width:
        raise ValueError(
            f"{table.path} has {table.feature} of width {table.width}, but {encoder.name} makes {dict(made)} here; "
            "embed the sounds again"
        )
    return layers, fusion, pooling


def _embed_texts(table: FeatureTable, encoder: Encoder, texts: list[str]) -> NDArray[np.float32]:
    from evar.extraction.texts import embed_text, require_text

    require_text(encoder)
    _read_recipe(table, encoder)
    if table.feature != encoder.text_layer:
        raise ValueError(
            f"texts are compared with the layer {encoder.text_layer} of {encoder.name}, but {table.path} holds "
            f"{table.feature}; embed the sounds with --layers={encoder.text_layer}"
        )
    return embed_text(encoder, texts)
