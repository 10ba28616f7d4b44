"""`evar.embed_text`: vectors of texts from an encoder that reads, and their place in the feature store."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from evar.storage.keys import FeatureKey

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evar.encoders.base import Encoder
    from evar.storage.feature_store import FeatureStore

LAYER = "text"


def embed_text(
    encoder: Encoder | str, texts: str | Sequence[str], store: FeatureStore | None = None
) -> NDArray[np.float32]:
    """Compute one vector a text, in the space that the encoder's sounds share.

    The similarity of a text and a clip is the cosine between its vector and that of `evar.embed`. The tokenizer's files are
    read from beside the encoder's checkpoint; nothing is fetched for them.

    Args:
        encoder: as `load_encoder` gives it, or its name (then it is loaded with its published weights); one that reads
            text, such as "clap.laion", or the "hf:" name of a CLAP.
        texts: one text, or a list of them.
        store: where vectors are kept; what is stored already is not computed again. None keeps nothing.

    Returns:
        (texts, width) float32, in the order given.

    Raises:
        ValueError: if the encoder reads no text, a text is empty, or the checkpoint holds no text half.
        FileNotFoundError: if files of the tokenizer are missing; they are named.

    Example:
        >>> embed_text("logmel", "a dog barks")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        ValueError: logmel reads no text; encoders that do are clap.laion, ...
    """
    from evar.encoders import load_encoder

    if isinstance(encoder, str):
        encoder = load_encoder(encoder)
    require_text(encoder)
    wanted = [texts] if isinstance(texts, str) else list(texts)
    reader: Any = encoder
    if store is None:
        return np.asarray(reader.encode_text(wanted).numpy(), np.float32)
    key = text_key(encoder)
    ids = [text_id(text) for text in wanted]
    first = dict(zip(ids, wanted, strict=True))
    if missing := [id for id in dict.fromkeys(ids) if id not in store.list_stored(key)]:
        with store.writing(key) as writer:
            stored = store.list_stored(key)  # another run may have stored some in the meantime
            missing = [id for id in missing if id not in stored]
            if missing:
                writer.append(missing, {LAYER: reader.encode_text([first[id] for id in missing]).numpy()})
    return np.asarray(store.load(key, ids, LAYER, store.rows(key)), np.float32)


def require_text(encoder: Encoder) -> None:
    """Raise unless an encoder reads text.

    Raises:
        ValueError: naming encoders that do.

    Example:
        >>> from evar.encoders import describe_encoder
        >>> require_text(describe_encoder("clap.ms2023"))
    """
    if not encoder.text_layer:
        raise ValueError(
            f"{encoder.name or type(encoder).__name__} reads no text; encoders that do are clap.laion, clap.ms2022, "
            "clap.ms2023, and the hub's CLAP models (hf:laion/clap-htsat-unfused)"
        )


def text_key(encoder: Encoder) -> FeatureKey:
    """Everything besides the text itself that can change its vector.

    Args:
        encoder: that reads text.

    Returns:
        The key that the store keeps the vectors under.
    """
    reader: Any = encoder
    return FeatureKey(
        encoder=encoder.store_name or encoder.name,
        weights_sha256=encoder.weights_sha256,
        options={**encoder.options, "text": reader.text_sha256},
        revision=encoder.revision,
        norm_stats=None,
        sample_rate=0,
        resampler="",
        clip_seconds=None,
        pad="none",
        crop="text",
        crop_seed=0,
        layers={LAYER: "text"},
    )


def text_id(text: str) -> str:
    """Address of a text within a key.

    Example:
        >>> text_id("rain")
        '319b44c570a417ff3444896cd4aa77f0@text'
    """
    return f"{hashlib.sha256(text.encode()).hexdigest()[:32]}@text"
