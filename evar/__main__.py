"""`python -m evar`: the same as the console script."""

from evar.cli import main

if __name__ == "__main__":
    main()
