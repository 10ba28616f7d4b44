"""The one error of this package."""

from __future__ import annotations


class AudioError(ValueError):
    """A clip that cannot be used; the message gives the reason in one sentence, without the name of the clip."""
