"""`python -m evar`: the same as the console script."""

import os
import sys

# Python puts the current folder before all others; packages that are optional must not be taken from there.
if (
    sys.path
    and sys.path[0] in ("", os.getcwd())
    and os.getcwd() != os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
):
    del sys.path[0]

from evar.cli import main

if __name__ == "__main__":
    main()
