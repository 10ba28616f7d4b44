"""`evar advise`: which encoder, and which layer of it, to read, with what it costs and how sure that is; never torch."""

from evar.advising.advice import advise
from evar.advising.answer import Advice

__all__ = ["Advice", "advise"]
