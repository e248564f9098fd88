"""`mini`: the embedded suite, real Python tasks that the package makes itself from a seed.

A task asks for a function of one argument (a list of numbers, or a string taken as words or as
letters), described in one clause, with one public assert; four private asserts are kept back. Tasks
are pipelines of two or three concepts, and the splits share no combination of concepts. A prompt:

    calc: the sum of the items above 3 doubled
    assert calc([4, 1, 7]) == 22

The completion is the code itself, without fences. The feedback is one line.
"""

from __future__ import annotations

from mucode_jax.benchmarks.mini.tasks import SHARES, Task, task
from mucode_jax.core.records import Benchmark

SPLITS = tuple(SHARES)
SIZES = {"train": 400, "validation": 200, "test": 400, "pretrain": 1000}

__all__ = ["SIZES", "SPLITS", "Task", "load", "task"]


def load(split: str, *, size: int | None = None, seed: int = 0) -> Benchmark:
    """The first `size` tasks of a split (by default `SIZES`); a larger size only adds tasks.

    Raises ValueError for an unknown split or a size below one.
    """
    size = SIZES.get(split, 1) if size is None else size
    if size < 1:
        raise ValueError(f"mini: size must be at least 1, not {size}")
    tasks = [task(split, seed, index) for index in range(size)]
    return Benchmark(
        name="mini",
        split=split,
        problems=tuple(t.problem for t in tasks),
        private={t.problem.task_id: t.private for t in tasks},
        solutions={t.problem.task_id: t.solution for t in tasks},
    )
