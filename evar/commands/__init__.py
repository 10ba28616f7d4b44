"""The commands of `evar`: a function each, whose parameters are its flags and whose docstring is its `--help`."""
