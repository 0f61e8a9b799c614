"""One way to spread array work over the processor's cores."""

import functools
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from threadpoolctl import threadpool_limits

Item = TypeVar("Item")
Result = TypeVar("Result")

MOST = 8
"""More threads than this gain nothing: the work is bound by memory."""


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_threads(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """`function` of each item, in order; numpy lets go of the interpreter's lock, so threads help."""
    _one_thread_per_product()
    with ThreadPoolExecutor(max_workers=min(cores(), MOST), thread_name_prefix="arrays") as pool:
        return list(pool.map(function, items))


@functools.cache
def _one_thread_per_product() -> None:
    """Stops numpy's matrix products from starting threads of their own, for the life of the process.

    OpenBLAS waits for its threads in a busy loop. Beside another process that uses the cores (an engine, the
    next study), that made these products up to a hundred times slower; one thread each is never slower here.
    """
    threadpool_limits(1, user_api="blas")
