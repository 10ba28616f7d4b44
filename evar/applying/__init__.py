"""Use what was learned: train a classifier, predict with it, and search stored vectors by a sound."""
