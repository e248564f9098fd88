"""What the algorithms share: rolling out, training the verifier, fine-tuning, targets."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from mucode_jax.lab import Artifact, Lab, LabelledRollouts, Model
from mucode_jax.records import Rollout, SFTExample, VerifierExample
from mucode_jax.training.step import OptimizerConfig


@dataclasses.dataclass(frozen=True)
class Trained:
    """What one iteration of a method leaves.

    Attributes:
      method: as in results.json.
      iteration: 1 … M.
      generator: the fine-tuned generator.
      verifier: the verifier that the method is searched with; None where it trains none.
    """

    method: str
    iteration: int
    generator: Model
    verifier: Model | None


def roll_out(
    config: ConfigDict, lab: Lab, generator: Model, iteration: int, single_turn: bool = False
) -> LabelledRollouts:
    """The iteration's rollouts with their labels: N of T turns, or N·T of a single turn."""
    turns, n = config.rollout.turns, config.rollout.n
    return lab.rollouts(
        generator,
        n=n * turns if single_turn else n,
        turns=1 if single_turn else turns,
        temperature=config.rollout.temperature,
        key=(config.seed, "single" if single_turn else "rollout", iteration),
    )


def train_verifier(
    config: ConfigDict, lab: Lab, generator: Model, visited: Sequence[LabelledRollouts]
) -> Model:
    """The verifier of all rollouts so far, named after the generator that made the last of them."""
    examples = [e for rollouts in visited for e in verifier_examples(rollouts)]
    settings = config.verifier_training
    return lab.train_verifier(
        generator,
        examples,
        visited,
        loss=settings.loss,
        epochs=settings.epochs,
        pairs_per_problem=settings.pairs_per_problem,
        batch=settings.batch,
        length=settings.length,
        score_penalty=settings.score_penalty,
        held_out=settings.held_out,
        optimizer=optimizer(settings),
        seed=config.seed,
    )


def fine_tune(
    config: ConfigDict,
    lab: Lab,
    name: str,
    examples: Sequence[SFTExample],
    inputs: Sequence[Artifact],
    selection: dict[str, Any],
) -> Model:
    """The base generator fine-tuned on `examples`, named `name`.

    Args:
      selection: the settings by which the examples were made from `inputs`.
    """
    settings = config.sft
    return lab.fine_tune(
        name,
        merge(examples),
        inputs,
        selection=selection,
        epochs=settings.epochs,
        batch=settings.batch,
        length=settings.length,
        optimizer=optimizer(settings),
        seed=config.seed,
    )


def optimizer(settings: ConfigDict) -> OptimizerConfig:
    """The optimizer's settings of one training section of the config."""
    names = [field.name for field in dataclasses.fields(OptimizerConfig)]
    return OptimizerConfig(**{name: settings[name] for name in names})


def example(task_id: str, state: np.ndarray, target: np.ndarray) -> SFTExample:
    """One state with its target: the target's ids are learned, its end of turn among them."""
    ids = np.concatenate([state, target]).astype(np.int32)
    weights = np.zeros(len(ids), np.float32)
    weights[len(state) :] = 1.0
    return SFTExample(task_id, ids, weights)


def relabelled(rollout: Rollout, target: np.ndarray) -> list[SFTExample]:
    """Every state of a rollout with the same target."""
    return [
        example(rollout.task_id, rollout.state(t), target) for t in range(len(rollout.turns))
    ]


def merge(examples: Sequence[SFTExample]) -> list[SFTExample]:
    """Identical examples once, with their weights added: the same objective at less cost."""
    merged: dict[tuple[str, bytes], SFTExample] = {}
    for e in examples:
        key = (e.task_id, e.ids.tobytes())
        if key in merged:
            e = dataclasses.replace(e, weights=merged[key].weights + e.weights)
        merged[key] = e
    return list(merged.values())


def verifier_examples(rollouts: LabelledRollouts) -> list[VerifierExample]:
    """Every distinct completion of every turn with its label; its input is the first prompt and the
    completion, never the history (paper, section 3.2)."""
    distinct = {}
    for rollout, label in zip(rollouts.items, rollouts.labels, strict=True):
        for t, correct in enumerate(label):
            ids = verifier_input(rollout, t)
            distinct[rollout.task_id, ids.tobytes()] = VerifierExample(
                rollout.task_id, ids, correct
            )
    return list(distinct.values())
