"""Alterations of a recording: noise, level, rooms, bands, codecs, cuts. Pure functions on one mono waveform.

Each takes (samples,) float32 and the sample rate in Hz, then keywords: the severity, fixed parameters and, where something
is drawn, `rng`. It returns (samples',) float32. `config/alterations/*.yaml` names them; a user's own function has the same
form.
"""
