"""The look of all plots."""
