"""Words in tables as people write them: splits, labels, numbers and times, read in one way or refused.

A reading that is not literal is put into words, so that it can be printed and kept in the task's notes. What two people
would read in two ways is refused.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from evar.config.tables import TableFile

#: as people write splits -> split
SPLIT_WORDS = {
    **dict.fromkeys(("train", "training", "trn", "tr"), "train"),
    **dict.fromkeys(("valid", "val", "validation", "vali"), "valid"),
    **dict.fromkeys(("dev", "devel", "development"), "dev"),
    **dict.fromkeys(("test", "testing", "tst"), "test"),
    **dict.fromkeys(("eval", "evaluation"), "eval"),
}
_FOLD = re.compile(r"(?:fold|cv|part)[ _-]?(\d{1,2})", re.IGNORECASE)
#: cells that say that a label is not known; lower case but for NA, which may be a syllable
_MISSING = frozenset(("", "nan", "null", "n/a", "#n/a", "<na>", "?", "hidden", "unlabeled", "unlabelled", "missing"))
_LIST = re.compile(r"\s*[\[({](.*)[\])}]\s*", re.DOTALL)
_LIST_ITEM = re.compile(
    r"""\s*(?:'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)"|([^\s,'"][^,'"]*?))\s*(?:,|;|(?=\s*['"])|$)"""
)
_NUMBER = re.compile(r"[+-]?\d+([.,]\d+)?(?:[eE][+-]?\d+)?")
_EVENT_TIMES = re.compile(r"\s*(\d+(?:[.,]\d+)?)\s*-\s*(\d+(?:[.,]\d+)?)\s+(\S.*?)\s*")


def read_frame(path: Path, aliases: dict[str, str] | None = None, required: Sequence[str] = ()) -> pd.DataFrame:
    """Read a CSV as text, by the reader that all commands share.

    Raises:
        ValueError: if it is no CSV, or lacks a column.
    """
    table = TableFile(path, aliases)
    table.require(*required)
    return pd.DataFrame(list(table.rows()), columns=list(table.columns), dtype=str)


def read_splits(words: Iterable[str], where: str) -> tuple[dict[str, str], str]:
    """Read the names of splits.

    Args:
        words: as they stand in the table, or names of folders.
        where: for the error.

    Returns:
        word -> train, valid or test; and, in words, what was not literal ("" where nothing was).

    Raises:
        ValueError: if a word is none, or could be two splits.

    Example:
        >>> read_splits(["Train", "Dev", "eval"], "table.csv")
        ({'Dev': 'valid', 'Train': 'train', 'eval': 'test'}, 'Dev is read as valid, eval is read as test')
    """
    found = sorted(set(words))
    plain = {word: SPLIT_WORDS.get(word.casefold().strip(" _-"), "") for word in found}
    for word, split in plain.items():
        if not split:
            raise ValueError(f"{where}: split must be train, valid or test, got {word!r}")
    kinds = set(plain.values())
    if "dev" in kinds and ("valid" in kinds or "train" not in kinds):
        word = next(word for word, split in plain.items() if split == "dev")
        likely = "train" if "train" not in kinds else "train or valid"
        raise ValueError(
            f"{where}: split must be train, valid or test, got {word!r}, which may mean {likely} here; write what it is"
        )
    if "eval" in kinds and "test" in kinds and ("valid" in kinds or "dev" in kinds):
        word = next(word for word, split in plain.items() if split == "eval")
        raise ValueError(
            f"{where}: split must be train, valid or test, got {word!r} beside the others; write what it is"
        )
    meaning = {"dev": "valid", "eval": "valid" if "test" in kinds else "test"}
    read = {word: meaning.get(split, split) for word, split in plain.items()}
    odd = [f"{word} is read as {split}" for word, split in read.items() if word.casefold() != split]
    return read, ", ".join(odd)


def read_fold(word: str) -> str:
    """Read the number in a name such as "fold3" or "fold_03"; "" where the name is of something else.

    Example:
        >>> read_fold("Fold_03"), read_fold("folder")
        ('3', '')
    """
    found = _FOLD.fullmatch(word)
    return str(int(found[1])) if found else ""


def is_missing(text: str) -> bool:
    """Tell whether a label stands for a missing label.

    Example:
        >>> is_missing("NaN"), is_missing("?"), is_missing("NA"), is_missing("na"), is_missing("unknown")
        (True, True, True, False, False)
    """
    return text.casefold() in _MISSING or text in ("NA", "N/A")


def compose(text: str) -> str:
    """Write a label with composed letters: two ways to store "é" are one class."""
    return unicodedata.normalize("NFC", text)


def split_list(text: str) -> list[str] | None:
    """Labels of a cell such as "['a', 'b']", or None if it is no list.

    Example:
        >>> split_list("['cat', 'dog, small']"), split_list("[]"), split_list("cat")
        (['cat', 'dog, small'], [], None)
    """
    inside = _LIST.fullmatch(text)
    if inside is None:
        return None
    body, items, at = inside[1].strip(), [], 0
    while at < len(body):
        found = _LIST_ITEM.match(body, at)
        if found is None or found.end() == at:
            return None
        items.append(next(group for group in found.groups() if group is not None).strip())
        at = found.end()
    return [item for item in items if item]


def read_numbers(texts: Sequence[str], where: str) -> list[str]:
    """Read numbers that may have a decimal comma, and write them with a decimal point.

    Raises:
        ValueError: if a comma may separate thousands, or point and comma are both there.
    """
    with_comma = [text for text in texts if "," in text]
    if not with_comma:
        return list(texts)
    odd = next((text for text in with_comma if not _NUMBER.fullmatch(text)), None)
    if odd is not None:
        raise ValueError(f"{where}: label must be a number, got {odd!r}; write it with a decimal point")
    both = any("." in text for text in texts)
    if both or all(re.fullmatch(r"[+-]?[1-9]\d{0,2},\d{3}", text) for text in with_comma):
        raise ValueError(
            f"{where}: label {with_comma[0]!r} may have a decimal comma or one between thousands; write a decimal point"
        )
    return [text.replace(",", ".") for text in texts]


def read_event(text: str) -> str:
    """Write an event with decimal points and single spaces; other text is returned unchanged, and refused later.

    Example:
        >>> read_event("0,5 - 1,25 dog"), read_event("1.5 dog")
        ('0.5-1.25 dog', '1.5 dog')
    """
    found = _EVENT_TIMES.fullmatch(text)
    if found is None:
        return text
    return f"{found[1].replace(',', '.')}-{found[2].replace(',', '.')} {compose(found[3])}"
