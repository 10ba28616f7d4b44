"""Tasks whose sounds are rendered on this machine, from parts that pip serves: `build` renders the clips of a task's index.

Two kinds of sound: notes of sampled General MIDI instruments (`soundfont` reads them, `notes` sounds them) and
utterances of a speech synthesiser (`speech`). `draw` holds the seeded draw that the committed indexes came from;
`building` writes the files. None of the parts is copied into this package, since their licences differ from its own.
"""

from evar.data.embedded.building import build, is_built

__all__ = ["build", "is_built"]
