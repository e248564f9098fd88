"""What a training leaves for TensorBoard: its metrics by step, and a profile of a few steps.

tensorboard --logdir runs/quickstart/tensorboard   (pip install tensorboard)
"""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Callable, Iterator, Mapping

import jax

# The steps before compile and warm up; they are not worth a profile.
_FIRST_PROFILED = 3

Note = Callable[[int, Mapping[str, float]], None]


@contextlib.contextmanager
def watched(directory: pathlib.Path, name: str, *, profile_steps: int = 0) -> Iterator[Note]:
    """Yields a function to call with every step and its metrics.

    Args:
      directory: where summaries of all trainings lie; they never decide anything, and may be
        removed.
      name: of the training, a folder below.
      profile_steps: so many steps are captured by JAX's profiler; 0 is none.
    """
    from tensorboardX import SummaryWriter

    writer = SummaryWriter(str(directory / name), write_to_disk=jax.process_index() == 0)
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
