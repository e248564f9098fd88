"""What stages leave: models, rollouts with their labels, scores, searches."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np

from mucode_jax.core.records import Rollout
from mucode_jax.rollouts.grading import Label
from mucode_jax.rollouts.search import Search
from mucode_jax.runtime.ledger import Stage


@dataclasses.dataclass(frozen=True)
class Model:
    """A generator or a verifier on disk.

    Attributes:
      method: as in results.json; "base" for the base.
      iteration: 0 for the base, else 1 … M.
      path: a Hugging Face directory.
      stage: the stage that made it.
    """

    method: str
    iteration: int
    path: pathlib.Path
    stage: Stage

    @property
    def name(self) -> str:
        return f"{self.method}_{self.iteration}" if self.iteration else self.method


@dataclasses.dataclass(frozen=True)
class LabelledRollouts:
    """Rollouts of a generator, sorted by problem and index, with the labels of their turns."""

    name: str
    generator: Model
    items: Sequence[Rollout]
    labels: Sequence[Label]
    stage: Stage


@dataclasses.dataclass(frozen=True)
class Scores:
    """The verifier's scores: per rollout float32 [turns]."""

    items: Sequence[np.ndarray]
    stage: Stage


@dataclasses.dataclass(frozen=True)
class Searches:
    """Finished searches with the label of every candidate of every turn."""

    items: Sequence[Search]
    labels: Sequence[Sequence[Label]]
    stage: Stage


def verifier_input(rollout: Rollout, turn: int) -> np.ndarray:
    """int32 [n]: what the verifier reads of a turn: the first prompt and its completion, never the
    history (paper, section 3.2)."""
    parts = [rollout.turns[0].prompt_ids, rollout.turns[turn].completion_ids]
    return np.concatenate(parts).astype(np.int32)
