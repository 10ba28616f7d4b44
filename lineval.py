"""Linear evaluation of frozen encoders: `python lineval.py --help` teaches; `evar lineval` is the same command."""

from evar.cli import main

if __name__ == "__main__":
    main(["lineval"])
