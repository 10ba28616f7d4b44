"""Probes: estimators that are fitted on frozen embeddings."""
