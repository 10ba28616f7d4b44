"""Read a SoundFont 2 file: which samples a preset plays for a note, and with which settings.

Only what sounding a note of a melodic preset needs: zones, generators and 16-bit mono samples. Modulators (what a
player's controllers do) are left out.

Source: SoundFont Technical Specification, version 2.01 (E-mu Systems, 1998): chunks in sections 5 to 7, generators and
their defaults in section 8.1. Names of generators below are spelt out from its table.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

# Generator number -> (name, default). Those that a single sounded note does not need (pan, effects sends) are absent.
_GENERATORS = {
    5: ("modulation_lfo_to_pitch", 0),
    6: ("vibrato_lfo_to_pitch", 0),
    7: ("modulation_envelope_to_pitch", 0),
    8: ("filter_cutoff", 13500),
    9: ("filter_resonance", 0),
    10: ("modulation_lfo_to_filter", 0),
    11: ("modulation_envelope_to_filter", 0),
    13: ("modulation_lfo_to_volume", 0),
    21: ("modulation_lfo_delay", -12000),
    22: ("modulation_lfo_frequency", 0),
    23: ("vibrato_lfo_delay", -12000),
    24: ("vibrato_lfo_frequency", 0),
    25: ("modulation_delay", -12000),
    26: ("modulation_attack", -12000),
    27: ("modulation_hold", -12000),
    28: ("modulation_decay", -12000),
    29: ("modulation_sustain", 0),
    30: ("modulation_release", -12000),
    33: ("volume_delay", -12000),
    34: ("volume_attack", -12000),
    35: ("volume_hold", -12000),
    36: ("volume_decay", -12000),
    37: ("volume_sustain", 0),
    38: ("volume_release", -12000),
    40: ("volume_decay_per_key", 0),
    48: ("attenuation", 0),
    51: ("coarse_tune", 0),
    52: ("fine_tune", 0),
    54: ("loop_mode", 0),
    56: ("scale_tuning", 100),
    58: ("root_key", -1),
}
# Offsets to a sample's (start, end, loop start, loop end): generator number -> (which of the four, samples a unit).
_OFFSETS = {0: (0, 1), 1: (1, 1), 2: (2, 1), 3: (3, 1), 4: (0, 32768), 12: (1, 32768), 45: (2, 32768), 50: (3, 32768)}
_INSTRUMENT, _KEY_RANGE, _VELOCITY_RANGE, _SAMPLE = 41, 43, 44, 53
# What a preset's zone never adds to the instrument's: these are set by the instrument alone (specification 8.5).
_INSTRUMENT_ONLY = {54, 58, *_OFFSETS}
_RECORDS = {
    "phdr": "<20sHHHIII",
    "pbag": "<HH",
    "pgen": "<HH",
    "inst": "<20sH",
    "ibag": "<HH",
    "igen": "<HH",
    "shdr": "<20sIIIIIBbHH",
}


@dataclass(frozen=True)
class Voice:
    """One sample sounded for a note, with its settings in the specification's own units.

    Attributes:
        sample: the recording in the font: its number and name.
        data: (samples,) float32 in [-1, 1), from the sample's start to its end.
        sample_rate: of `data` in Hz.
        loop: (start, end) in samples of `data`; the end is the first sample after the loop.
        root: MIDI key at which `data` sounds untransposed; `correction` is added to its pitch, in cents.
        settings: generator name -> value: timecents, cents, centibels, tenths of a percent.
    """

    sample: str
    data: np.ndarray
    sample_rate: int
    loop: tuple[int, int]
    root: int
    correction: int
    settings: dict[str, int]


class SoundFont:
    """The presets of one SoundFont 2 file.

    Args:
        path: an uncompressed `.sf2` file.

    Raises:
        ValueError: if the file is not a SoundFont 2, or is cut off.
        OSError: if it cannot be read.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        content = self.path.read_bytes()
        if content[:4] != b"RIFF" or content[8:12] != b"sfbk":
            raise ValueError(f"{self.path} must be a SoundFont 2 file (RIFF sfbk), got {content[:12]!r} at its start")
        chunks = dict(_list_chunks(content, 12, len(content)))
        missing = sorted({"smpl", *_RECORDS} - set(chunks))
        if missing:
            raise ValueError(f"{self.path} lacks the SoundFont chunk {missing[0]!r}; is the file cut off?")
        self._pcm = np.frombuffer(chunks["smpl"], dtype="<i2")
        try:
            self._records = {name: list(struct.iter_unpack(form, chunks[name])) for name, form in _RECORDS.items()}
        except struct.error as error:
            raise ValueError(f"{self.path} has a damaged SoundFont table: {error}") from error
        # The last record of a table only closes the one before it.
        self._presets = {(row[2], row[1]): index for index, row in enumerate(self._records["phdr"][:-1])}

    def presets(self) -> dict[int, str]:
        """MIDI program 0..127 -> the font's name of that preset, for melodic presets (bank 0)."""
        rows = self._records["phdr"]
        return {program: _decode_name(rows[index][0]) for (bank, program), index in self._presets.items() if bank == 0}

    def voices(self, program: int, note: int, velocity: int) -> list[Voice]:
        """List the voices that sound for a note; their samples must be added.

        Args:
            program: MIDI program, 0..127, bank 0.
            note: MIDI key, 0..127 (60 is middle C).
            velocity: MIDI velocity, 1..127.

        Raises:
            ValueError: if the font has no such preset.
        """
        return [
            self._make_voice(zone, preset_zone)
            for preset_zone, zone in self._pair_zones(program)
            if _is_in_range(preset_zone, note, velocity) and _is_in_range(zone, note, velocity)
        ]

    def sample_names(self, program: int) -> set[str]:
        """Return every recording that a preset can play, over all keys and velocities.

        Raises:
            ValueError: if the font has no such preset.
        """
        return {self._sample_name(zone[_SAMPLE]) for _, zone in self._pair_zones(program)}

    def _pair_zones(self, program: int) -> Iterator[tuple[dict[int, int], dict[int, int]]]:
        """A preset's zones, each with every zone of its instrument."""
        if (0, program) not in self._presets:
            raise ValueError(f"{self.path.name} has no preset for program {program}; it has {sorted(self.presets())}")
        for preset_zone in self._read_zones("phdr", 3, self._presets[0, program], "pbag", "pgen", _INSTRUMENT):
            for zone in self._read_zones("inst", 1, preset_zone[_INSTRUMENT], "ibag", "igen", _SAMPLE):
                yield preset_zone, zone

    def _read_zones(
        self, table: str, column: int, index: int, bags: str, generators: str, final: int
    ) -> Iterator[dict[int, int]]:
        """Generators of each zone of a preset or instrument, its global zone (the one without `final`) merged in."""
        rows, bag_rows, generator_rows = self._records[table], self._records[bags], self._records[generators]
        shared: dict[int, int] = {}
        first, last = rows[index][column], rows[index + 1][column]
        for bag in range(first, last):
            zone = dict(generator_rows[bag_rows[bag][0] : bag_rows[bag + 1][0]])
            if final in zone:
                yield {**shared, **zone}
            elif bag == first:
                shared = zone

    def _make_voice(self, zone: dict[int, int], preset_zone: dict[int, int]) -> Voice:
        _, *bounds, sample_rate, original_key, correction, _, _ = self._records["shdr"][zone[_SAMPLE]]
        for number, (which, unit) in _OFFSETS.items():
            bounds[which] += _read_signed(zone.get(number, 0)) * unit
        start, end, loop_start, loop_end = bounds
        settings = {}
        for number, (key, default) in _GENERATORS.items():
            value = _read_signed(zone[number]) if number in zone else default
            settings[key] = value + (0 if number in _INSTRUMENT_ONLY else _read_signed(preset_zone.get(number, 0)))
        return Voice(
            sample=self._sample_name(zone[_SAMPLE]),
            data=self._pcm[start:end].astype(np.float32) / 32768,
            sample_rate=sample_rate,
            loop=(loop_start - start, loop_end - start),
            root=settings["root_key"] if settings["root_key"] >= 0 else original_key,
            correction=correction,
            settings=settings,
        )

    def _sample_name(self, number: int) -> str:
        return f"{number} {_decode_name(self._records['shdr'][number][0])}"


def _list_chunks(content: bytes, start: int, end: int) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of every chunk that is not a list, the lists opened; chunks are padded to even length."""
    while start + 8 <= end:
        name, size = struct.unpack_from("<4sI", content, start)
        body = start + 8
        if body + size > end:
            return
        if name == b"LIST":
            yield from _list_chunks(content, body + 4, body + size)
        else:
            yield name.decode("latin-1"), content[body : body + size]
        start = body + size + size % 2


def _is_in_range(zone: dict[int, int], note: int, velocity: int) -> bool:
    """Tell whether a zone sounds: its ranges hold the lowest value in the low byte, the highest in the high byte."""
    for number, value in ((_KEY_RANGE, note), (_VELOCITY_RANGE, velocity)):
        bounds = zone.get(number, 127 << 8)
        if not bounds & 0xFF <= value <= bounds >> 8:
            return False
    return True


def _read_signed(value: int) -> int:
    """A 16-bit generator amount read as two's complement."""
    return value - 65536 if value >= 32768 else value


def _decode_name(name: bytes) -> str:
    return name.split(b"\0")[0].decode("latin-1").strip()
