"""Results that can be put together, given to others, and checked by them."""

from __future__ import annotations

from evar.sharing.auditing import AuditReport, RowVerdict, audit_bundle
from evar.sharing.bundle import open_bundle, write_bundle
from evar.sharing.merging import Merged, merge_results

__all__ = ["AuditReport", "Merged", "RowVerdict", "audit_bundle", "merge_results", "open_bundle", "write_bundle"]
