"""Classifier files: a fitted probe with all that it takes to use it on other sounds, and its model card."""
