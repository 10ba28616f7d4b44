"""Cores for work of many small steps, each too small for several threads to share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

#: beyond it, threads wait for the interpreter, which only one of them runs at a time
_MOST_THREADS = 1
#: of them side by side, steps are large enough to leave the interpreter to others
_LEAST_ITEMS = 4


def share_out(work: Callable[[Sequence[int]], Any], n_items: int) -> None:
    """Call `work` with disjoint parts of range(n_items) that cover it, on several cores where there are.

    Each part runs in a thread of its own, with one thread for torch's kernels: small steps side by side keep cores
    busier than small steps that are split.

    Args:
        work: told positions of items, ascending; must not touch another part's.
        n_items: items of about equal cost.

    Raises:
        Exception: what `work` raises, of the first part that raises.
    """
    n_threads = torch.get_num_threads()
    n_parts = min(n_threads, _MOST_THREADS, n_items // _LEAST_ITEMS)
    if n_parts < 2:
        work(range(n_items))
        return
    torch.set_num_threads(1)  # also of threads that are yet to start
    try:
        with ThreadPoolExecutor(n_parts) as pool:
            for done in [pool.submit(work, range(first, n_items, n_parts)) for first in range(n_parts)]:
                done.result()
    finally:
        torch.set_num_threads(n_threads)
