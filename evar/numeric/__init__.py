"""Numerics that know nothing about audio: arrays that are read in parts, logistic solvers, axes, devices."""
