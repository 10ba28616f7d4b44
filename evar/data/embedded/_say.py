"""Child process: one sentence through the eSpeak NG library, samples to standard output. Standard library only.

Run by path, not imported: `python -I -S _say.py`, in the folder that holds `espeak-ng-data`, with UTF-8 lines on standard
input: library, sample rate, rate, pitch, voice, text. Writes 16-bit samples in the machine's byte order. Few imports:
a task needs hundreds of these processes, and JSON alone would cost each of them a third of its time.

Source: names, order of arguments and constants from eSpeak NG's public header `speak_lib.h`.
"""

import ctypes
import sys

SYNCHRONOUS = 2  # espeak_AUDIO_OUTPUT: samples arrive during the call, nothing is played
DONT_EXIT = 0x8000  # espeakINITIALIZE_DONT_EXIT: report a missing data folder instead of ending the process
RATE, VOLUME, PITCH = 1, 2, 3  # espeak_PARAMETER
UTF8 = 1  # espeakCHARS_UTF8
LOW_VOLUME = 40  # of 100: several voices clip inside the library at its usual volume
SEED = 1


def main() -> int:
    """Speak the job on standard input; the exit status is 0 if samples were written."""
    library, expected_rate, rate, pitch, voice, text = sys.stdin.buffer.read().decode("utf-8").split("\n", 5)
    espeak = ctypes.CDLL(library)
    # "." and not the path itself: the library keeps it in a short buffer and reads it in the system's code page.
    sample_rate = espeak.espeak_Initialize(SYNCHRONOUS, 0, b".", DONT_EXIT)
    if sample_rate != int(expected_rate):
        print(f"the library speaks at {sample_rate} Hz, expected {expected_rate}", file=sys.stderr)
        return 2
    # The library seeds its noise from the clock.
    espeak.espeak_ng_SetRandSeed.argtypes = [ctypes.c_long]
    espeak.espeak_ng_SetRandSeed(SEED)

    samples: list[bytes] = []

    @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)
    def receive(wave: int, n_samples: int, events: int) -> int:
        if n_samples > 0:
            samples.append(ctypes.string_at(wave, 2 * n_samples))
        return 0

    espeak.espeak_SetSynthCallback(receive)
    if espeak.espeak_SetVoiceByName(voice.encode("utf-8")) != 0:
        print(f"the library has no voice {voice!r}", file=sys.stderr)
        return 3
    for parameter, value in ((RATE, int(rate)), (VOLUME, LOW_VOLUME), (PITCH, int(pitch))):
        espeak.espeak_SetParameter(parameter, value, 0)
    content = text.encode("utf-8")
    espeak.espeak_Synth.argtypes = [
        ctypes.c_char_p,
        ctypes.c_size_t,
        ctypes.c_uint,
        ctypes.c_int,
        ctypes.c_uint,
        ctypes.c_uint,
        ctypes.c_void_p,
        ctypes.c_void_p,
    ]
    status = espeak.espeak_Synth(content, len(content) + 1, 0, 0, 0, UTF8, None, None)
    if status != 0:
        print(f"the library refuses {text!r} with status {status}", file=sys.stderr)
        return 4
    sys.stdout.buffer.write(b"".join(samples))
    return 0


if __name__ == "__main__":
    sys.exit(main())
