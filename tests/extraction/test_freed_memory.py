"""Freed memory stays with the process inside the block, and goes back after it."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest
import torch

from evar.extraction import freed_memory
from evar.extraction.freed_memory import keep_freed_memory


def count_faults() -> int:
    """Pages that one large tensor costs, which is made, written and freed."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(20_000_000)  # 80 MB, 20,000 pages
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def count_resident_megabytes() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def test_large_tensors_cost_their_pages_once() -> None:
    if freed_memory._find_glibc() is None:
        pytest.skip("the C library is not glibc, or its allocator is tuned already")
    usual = min(count_faults() for _ in range(3))
    if usual < 1000:
        pytest.skip("the system gives large pages, or the heap of this process has room for the tensor")
    with keep_freed_memory():
        count_faults()
        with keep_freed_memory():  # of another thread, or nested
            pass
        kept = min(count_faults() for _ in range(3))
        held = count_resident_megabytes()
    assert kept < usual / 10
    assert count_resident_megabytes() < held - 60, "the memory goes back after the block"


def test_a_tuned_allocator_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "100000")
    assert freed_memory._find_glibc() is None
    with keep_freed_memory():
        pass
