"""Robustness: probes that were fitted on clean clips are tested on altered ones."""
