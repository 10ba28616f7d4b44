"""The texts that clips of a cell are compared with: prompts of the classes, or the captions of each clip."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import numpy as np

from evar.data.sentences import list_templates, name_classes, write_prompts
from evar.extraction.texts import embed_text

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evar.data.task import Task
    from evar.encoders.base import Encoder


def list_texts(task: Task) -> list[list[str]]:
    """Return the texts that clips of a task are compared with: (templates, classes) prompts, or captions clip by clip.

    Args:
        task: with its classes.

    Raises:
        ValueError: as `evar.data.sentences.write_prompts`.

    Example:
        >>> from evar.data.task import load_task
        >>> len(list_texts(load_task("esc10"))[0])
        10
    """
    if task.config.kind == "captions":
        return [list(captions) for captions in task.y]
    return write_prompts(task.config)


def hash_texts(encoder: Any, task: Task) -> str:
    """Return what tells two sets of texts, or two tokenizers, apart: 16 hexadecimal digits.

    Args:
        encoder: that reads them.
        task: whose texts they are.
    """
    text = json.dumps([list_texts(task), encoder.text_sha256])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def embed_texts(encoder: Encoder, task: Task, store: Any) -> NDArray[np.float32] | list[NDArray[np.float32]]:
    """Return the vectors of a task's texts, computed now where they are not stored.

    Args:
        encoder: that reads them.
        task: whose texts they are.
        store: `evar.storage.feature_store.FeatureStore` that keeps them.

    Returns:
        (templates, classes, width) of prompts; (captions, width) of each clip.
    """
    texts = list_texts(task)
    flat = embed_text(encoder, [text for row in texts for text in row], store)
    if task.config.kind == "captions":
        return np.split(flat, np.cumsum([len(row) for row in texts])[:-1])
    return flat.reshape(len(texts), -1, flat.shape[1])


def describe_texts(task: Task) -> dict[str, Any]:
    """Describe the prompts of a row: templates, and the names of the classes."""
    return {"templates": list(list_templates(task.config)), "names": name_classes(task.config)}
