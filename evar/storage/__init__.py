"""Stores of vectors and frames, their keys, mirrors of remote addresses, and atomic writes."""
