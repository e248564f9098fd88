"""What a training leaves for TensorBoard: its metrics by step, and a profile of a few steps.

tensorboard --logdir runs/quickstart/tensorboard   (pip install tensorboard)
"""

from __future__ import annotations

import contextlib
import pathlib
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax

# The steps before compile and warm up; they are not worth a profile.
_FIRST_PROFILED = 3

Note = Callable[[int, Mapping[str, float]], None]


def _writer_class() -> Any:
    """tensorboardX's, imported without torch: where that is installed it takes two seconds."""
    absent: dict[str, Any] = {} if "torch" in sys.modules else {"torch": None}
    sys.modules.update(absent)
    try:
        from tensorboardX import SummaryWriter
    finally:
        for name in absent:
            del sys.modules[name]
    return SummaryWriter


@contextlib.contextmanager
def watched(directory: pathlib.Path, name: str, *, profile_steps: int = 0) -> Iterator[Note]:
    """Yields a function to call with every step and its metrics.

    Args:
      directory: where summaries of all trainings lie; they never decide anything, and may be
        removed.
      name: of the training, a folder below.
      profile_steps: so many steps are captured by JAX's profiler; 0 is none.
    """
    writer = _writer_class()(str(directory / name), write_to_disk=jax.process_index() == 0)
    seen = 0

    def note(step: int, metrics: Mapping[str, float]) -> None:
        nonlocal seen
        seen += 1
        for key, value in metrics.items():
            writer.add_scalar(key, value, step)
        if profile_steps and seen == _FIRST_PROFILED:
            jax.profiler.start_trace(str(directory / name))
        if profile_steps and seen == _FIRST_PROFILED + profile_steps:
            jax.profiler.stop_trace()

    try:
        yield note
    finally:
        if profile_steps and _FIRST_PROFILED <= seen < _FIRST_PROFILED + profile_steps:
            jax.profiler.stop_trace()
        writer.close()
