"""How the committed indexes of the embedded tasks were drawn: `python -m evar.data.embedded.draw FOLDER` writes them again.

The committed CSV is what counts; this shows where it came from, and a test holds the two equal. Draws are hashes of
what is drawn, not a stream of random numbers: they are the same under every Python and numpy, and one clip's draw does
not depend on any other's.
"""

from __future__ import annotations

import csv
import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

SEED = "evar embedded 1"
SPLITS = ("train", "valid", "test")
LEVELS = range(-34, -23)  # dB below full scale; drawn for each clip without regard to its label

PITCH_CLASSES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
LOWEST_NOTE = 36  # MIDI; C2

# Programs are numbered 0..127. In both tables no recording of the font sounds in two splits (a test reads the font and
# checks it): presets with different names often share recordings, so that a split by name alone would leak.
# Pitched presets whose sounded pitch agrees with the note over four octaves (measured with an f0 tracker).
PITCH_PROGRAMS = {
    "train": (0, 4, 6, 10, 12, 19, 20, 24, 25, 27, 33, 38, 40, 45, 48, 53, 57, 60, 61, 68, 70, 75, 79, 105),
    "valid": (5, 13, 37, 50, 64, 71),
    "test": (11, 26, 32, 42, 46, 52, 56, 66, 73, 80, 107, 111),
}
# Families as the General MIDI 1 sound set names them. Left out: synth pad and synth effects (in this font they nearly
# all share the same recordings, so no honest split exists) and sound effects (a gunshot teaches nothing about a bird).
FAMILY_PROGRAMS = {
    "piano": {"train": (0, 2, 3, 4), "valid": (6,), "test": (5,)},
    "chromatic_percussion": {"train": (8, 10, 13, 14), "valid": (9,), "test": (11, 12)},
    "organ": {"train": (17, 18, 20, 21), "valid": (22,), "test": (19,)},
    "guitar": {"train": (24, 25, 27, 28), "valid": (30,), "test": (26, 31)},
    "bass": {"train": (33, 35, 36, 39), "valid": (37,), "test": (32,)},
    "strings": {"train": (40, 41, 44, 46), "valid": (45,), "test": (42, 43)},
    "ensemble": {"train": (48, 49, 53, 54), "valid": (50,), "test": (52,)},
    "brass": {"train": (57, 58, 59, 60), "valid": (61,), "test": (56,)},
    "reed": {"train": (67, 68, 69, 70), "valid": (64,), "test": (66, 71)},
    "pipe": {"train": (72, 75, 77, 79), "valid": (78,), "test": (73,)},
    "synth_lead": {"train": (82, 85, 86), "valid": (80,), "test": (81, 87)},
    "ethnic": {"train": (104, 105, 106, 111), "valid": (108,), "test": (107,)},
    "percussive": {"train": (112, 115, 116, 118), "valid": (114,), "test": (113, 117)},
}
# Every family sounds the same notes: two octaves in training, every fourth or second note of them elsewhere.
FAMILY_NOTES = {"train": range(48, 72), "valid": range(49, 72, 4), "test": range(48, 72, 2)}

# Twelve of the families, all pitched, for clips in which one to four sound together.
MIXED_FAMILIES = tuple(family for family in FAMILY_PROGRAMS if family != "percussive")
MIXED_CLIPS = {"train": 360, "valid": 96, "test": 192}
MIXED_SIZES = (1, 2, 2, 3, 3, 4)
GAINS = range(-6, 1)  # dB of one instrument against the loudest

# eSpeak NG's variants without near-twins of each other, without whispers and metallic echoes, and without those whose
# noise comes from the system's random numbers (its Klatt synthesisers). High and low voices in every split.
VOICES = {
    "train": (
        *("belinda", "shelby", "Andrea", "f1", "grandma", "aunty"),
        *("m3", "kaukovalta", "AnxiousAndy", "Marco", "marcelo", "miguel", "sandro", "Jacky", "pablo", "quincy", "ed"),
    ),
    "valid": ("f5", "zac", "iven2", "ian", "Nguyen"),
    "test": ("steph2", "anika", "Annie", "Lee", "travis", "boris", "norbert", "Storm"),
}
RATES, PITCHES = range(130, 211), range(30, 71)

# The twenty core words of the Speech Commands data set (P. Warden, 2018, arXiv:1804.03209).
WORDS = (
    *("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go"),
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
)
ACCENTS = ("en-us", "en-gb-x-rp", "en-gb-scotland", "en-029")

LANGUAGES = {
    "english": "en-us",
    "french": "fr",
    "german": "de",
    "italian": "it",
    "polish": "pl",
    "spanish": "es",
    "swedish": "sv",
    "turkish": "tr",
}
NUMBERS = {"train": range(21, 1000, 3), "valid": range(22, 1000, 3), "test": range(23, 1000, 3)}
NUMBERS_PER_VOICE = {"train": 2, "valid": 2, "test": 3}

#: General MIDI program -> the instrument in words; no recording of the font sounds in two splits (see `draw`)
INSTRUMENTS = {
    "train": {
        0: "a piano",
        8: "a celesta",
        17: "a percussive organ",
        24: "a classical guitar",
        33: "an electric bass",
        40: "a violin",
        48: "a string ensemble",
        57: "a trombone",
        67: "a baritone saxophone",
        72: "a piccolo",
        82: "a calliope synthesizer",
        104: "a sitar",
    },
    "valid": {
        6: "a harpsichord",
        9: "a glockenspiel",
        22: "a harmonica",
        30: "a distorted electric guitar",
        37: "a slap bass",
        45: "plucked strings",
        50: "synthesizer strings",
        61: "a brass section",
        64: "a soprano saxophone",
        78: "a whistle",
        80: "a square wave synthesizer",
        108: "a kalimba",
    },
    "test": {
        5: "an electric piano",
        11: "a vibraphone",
        12: "a marimba",
        19: "a church organ",
        26: "a jazz guitar",
        31: "guitar harmonics",
        32: "an acoustic bass",
        42: "a cello",
        43: "a contrabass",
        52: "a choir",
        56: "a trumpet",
        66: "a tenor saxophone",
        71: "a clarinet",
        73: "a flute",
        81: "a sawtooth synthesizer",
        87: "a bass synthesizer",
        107: "a koto",
    },
}
REGISTERS = {"low": range(48, 53), "high": range(67, 72)}
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
#: digits that are said in every language, for each split
SAID = {"train": (1, 6), "valid": (3, 8), "test": tuple(range(10))}
CAPTIONS_TASK = "rendered_captions"


def rows(name: str) -> list[dict[str, str]]:
    """Draw the index of an embedded task.

    Args:
        name: gm_pitch, gm_instrument, gm_multi, spoken_words, spoken_language or rendered_captions.

    Returns:
        One dict for each clip: path, label, split, group, and the settings that the clip is rendered from, all as text.

    Raises:
        ValueError: if there is no such task.

    Example:
        >>> rows("gm_pitch")[0]["group"]
        'gm000'
    """
    drawers = {
        "gm_pitch": _draw_gm_pitch,
        "gm_instrument": _draw_gm_instrument,
        "gm_multi": _draw_gm_multi,
        "spoken_words": _draw_spoken_words,
        "spoken_language": _draw_spoken_language,
        CAPTIONS_TASK: _draw_rendered_captions,
    }
    if name not in drawers:
        raise ValueError(f"no embedded task {name!r} to draw; it has {', '.join(drawers)}")
    return [{key: str(value) for key, value in row.items()} for row in drawers[name]()]


def write(name: str, folder: Path) -> Path:
    """Write a task's index as `folder/NAME.csv` and return its path. Errors as for `rows`."""
    drawn = rows(name)
    path = folder / f"{name}.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(drawn[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(drawn)
    return path


def _hash(*what: object) -> int:
    text = " ".join(map(str, (SEED, *what)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def _draw(options: Sequence[T], *what: object) -> T:
    """One of the options, the same whenever it is drawn for the same thing."""
    return options[_hash(*what) % len(options)]


def _shuffle(options: Sequence[T], *what: object) -> list[T]:
    return sorted(options, key=lambda option: _hash(*what, option))


def _make_note_row(task: str, label: str, split: str, program: int, note: int) -> dict[str, object]:
    path = f"{split}/gm{program:03d}_note{note:03d}.wav"
    level = _draw(LEVELS, task, "level", program, note)
    made_from = {"program": program, "note": note, "level_db": level}
    return {"path": path, "label": label, "split": split, "group": f"gm{program:03d}", **made_from}


def _draw_gm_pitch() -> list[dict[str, object]]:
    return [
        _make_note_row("gm_pitch", label, split, program, note)
        for split in SPLITS
        for program in PITCH_PROGRAMS[split]
        for number, label in enumerate(PITCH_CLASSES)
        for note in [LOWEST_NOTE + number + 12 * _draw(range(4), "octave", program, label)]
    ]


def _draw_gm_instrument() -> list[dict[str, object]]:
    drawn = []
    for split in SPLITS:
        for family, programs in FAMILY_PROGRAMS.items():
            notes = _shuffle(FAMILY_NOTES[split], "notes", family, split)
            for place, note in enumerate(notes):
                program = programs[split][place % len(programs[split])]
                drawn.append(_make_note_row("gm_instrument", family, split, program, note))
    return drawn


def _draw_gm_multi() -> list[dict[str, object]]:
    """One to four families at once; in every dozen clips' instruments taken together, each family comes as often."""
    drawn = []
    for split in SPLITS:
        deck: list[str] = []
        for number in range(MIXED_CLIPS[split]):
            size = _draw(MIXED_SIZES, "gm_multi", "size", split, number)
            families: list[str] = []
            while len(families) < size:
                if not deck:
                    deck = _shuffle(MIXED_FAMILIES, "gm_multi", "deck", split, number, len(families))
                families += [deck.pop(0)] if deck[0] not in families else [deck.pop()]
                families = list(dict.fromkeys(families))
            families.sort(key=MIXED_FAMILIES.index)
            what = ("gm_multi", split, number)
            programs = [_draw(FAMILY_PROGRAMS[family][split], *what, "program", family) for family in families]
            notes = _shuffle(FAMILY_NOTES[split], *what, "notes")[:size]
            drawn.append(
                {
                    "path": f"{split}/mix{number:03d}.wav",
                    "label": ";".join(families),
                    "split": split,
                    "group": f"{split} {number:03d}",
                    "programs": ";".join(map(str, programs)),
                    "notes": ";".join(map(str, notes)),
                    "gains_db": ";".join(str(_draw(GAINS, *what, "gain", family)) for family in families),
                    "level_db": _draw(LEVELS, *what, "level"),
                }
            )
    return drawn


def _make_utterance_row(
    task: str, label: str, split: str, voice: str, text: str, language: str, what: str
) -> dict[str, object]:
    made_from = {
        "text": text,
        "language": language,
        "voice": voice,
        "rate": _draw(RATES, task, "rate", voice, what),
        "pitch": _draw(PITCHES, task, "pitch", voice, what),
        "level_db": _draw(LEVELS, task, "level", voice, what),
    }
    return {"path": f"{split}/{voice}_{what}.wav", "label": label, "split": split, "group": voice, **made_from}


def _draw_spoken_words() -> list[dict[str, object]]:
    return [
        _make_utterance_row("spoken_words", word, split, voice, word, _draw(ACCENTS, "accent", voice, word), word)
        for split in SPLITS
        for voice in VOICES[split]
        for word in WORDS
    ]


def _draw_spoken_language() -> list[dict[str, object]]:
    """Every voice says its numbers in all languages, so that neither voice nor number tells the language."""
    return [
        _make_utterance_row("spoken_language", label, split, voice, str(number), language, f"{label}_{number}")
        for split in SPLITS
        for voice in VOICES[split]
        for number in _shuffle(NUMBERS[split], "numbers", voice)[: NUMBERS_PER_VOICE[split]]
        for label, language in LANGUAGES.items()
    ]


def _draw_rendered_captions() -> list[dict[str, object]]:
    """Draw a low and a high note of every instrument, and digits in every language, with two captions each.

    Both captions of a clip say the same in other words, and no caption of a split fits two of its clips.
    """
    return [
        row
        for split in SPLITS
        for row in (
            *(
                _make_captioned_note(split, program, register)
                for program in INSTRUMENTS[split]
                for register in REGISTERS
            ),
            *(_make_captioned_utterance(split, digit, language) for digit in SAID[split] for language in LANGUAGES),
        )
    ]


def _make_captioned_note(split: str, program: int, register: str) -> dict[str, object]:
    instrument = INSTRUMENTS[split][program]
    plays = "play" if instrument.split()[0] in ("plucked", "synthesizer", "guitar") else "plays"
    return {
        "path": f"{split}/gm{program:03d}_{register}.wav",
        "label": f"a {register} note on {instrument}|{instrument} {plays} a {register} note",
        "split": split,
        "group": f"gm{program:03d}",
        "program": program,
        "note": _draw(REGISTERS[register], CAPTIONS_TASK, "note", program, register),
        **dict.fromkeys(("text", "language", "voice", "rate", "pitch"), ""),
        "level_db": _draw(LEVELS, CAPTIONS_TASK, "level", program, register),
    }


def _make_captioned_utterance(split: str, digit: int, language: str) -> dict[str, object]:
    word, name, what = DIGITS[digit], language.capitalize(), (CAPTIONS_TASK, split, digit, language)
    voice = _draw(VOICES[split], *what, "voice")
    return {
        "path": f"{split}/{language}_{digit}.wav",
        "label": f"a voice says {word} in {name}|someone speaks the number {word} in {name}",
        "split": split,
        "group": voice,
        "program": "",
        "note": "",
        "text": str(digit),
        "language": LANGUAGES[language],
        "voice": voice,
        "rate": _draw(RATES, *what, "rate"),
        "pitch": _draw(PITCHES, *what, "pitch"),
        "level_db": _draw(LEVELS, *what, "level"),
    }


if __name__ == "__main__":
    for task_name in ("gm_pitch", "gm_instrument", "gm_multi", "spoken_words", "spoken_language", CAPTIONS_TASK):
        print(write(task_name, Path(sys.argv[1])))
