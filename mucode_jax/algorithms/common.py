"""What the algorithms share: rolling out, training the verifier, fine-tuning, targets."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from mucode_jax.checks import plan
from mucode_jax.core.records import Benchmark, Rollout, SFTExample, VerifierExample
from mucode_jax.lab import (
    Lab,
    LabelledRollouts,
    Model,
    Sampling,
    Scores,
    learn,
    sample,
    verifier_input,
)


@dataclasses.dataclass(frozen=True)
class Trained:
    """What one iteration of a method leaves.

    Attributes:
      generator: the fine-tuned generator; it bears the method's name and the iteration's number.
      visited: all rollouts that the method has made so far. The verifier that the method is
        searched with is trained on them.
    """

    generator: Model
    visited: Sequence[LabelledRollouts]


def roll_out(
    config: ConfigDict,
    lab: Lab,
    benchmark: Benchmark,
    generator: Model,
    single_turn: bool = False,
) -> LabelledRollouts:
    """The iteration's rollouts with their labels: N of T turns, or N·T of a single turn."""
    turns, n = config.rollout.turns, config.rollout.n
    name = "singles" if single_turn else "rollouts"
    return sample.rollouts(
        lab,
        name,
        generator,
        benchmark,
        n=n * turns if single_turn else n,
        turns=1 if single_turn else turns,
        sampling=sampling(config.rollout),
        key=(config.seed, name, generator.iteration),
        add_correct=config.rollout.add_correct,
    )


def budget(config: ConfigDict, trained: Trained) -> dict[str, Any]:
    """How many completions of training problems a method has drawn, of how many it might have.

    The base's are those that its verifier learns from. Rollouts that pass the public tests end
    early, so methods with the same `most` draw different numbers. Reference solutions do not count.

    Returns:
      `method`, `iteration`, `drawn`, `most`.
    """
    settings = config.rollout
    drawn = most = 0
    for rollouts in trained.visited:
        n = settings.n * settings.turns if rollouts.name == "singles" else settings.n
        sampled = [rollout for rollout in rollouts.items if rollout.index < n]
        drawn += sum(len(rollout.turns) for rollout in sampled)
        most += settings.n * settings.turns * len({rollout.task_id for rollout in sampled})
    generator = trained.generator
    return {
        "method": generator.method,
        "iteration": generator.iteration,
        "drawn": drawn,
        "most": most,
    }


def train_verifier(
    config: ConfigDict, lab: Lab, visited: Sequence[LabelledRollouts]
) -> Model | None:
    """The verifier of all rollouts so far; every method trains its own by this one recipe."""
    settings = config.verifier_training
    return learn.train_verifier(
        lab,
        visited,
        verifier_examples(visited),
        plan.recipe(settings, config.seed),
        loss=settings.loss,
        pairs_per_problem=settings.pairs_per_problem,
        score_penalty=settings.score_penalty,
        held_out=settings.held_out,
    )


def fine_tune(
    config: ConfigDict,
    lab: Lab,
    method: str,
    iteration: int,
    examples: Sequence[SFTExample],
    inputs: Sequence[LabelledRollouts | Scores],
    selection: dict[str, Any],
) -> Model:
    """The base generator fine-tuned on `examples`, which were made of `inputs` by `selection`."""
    if config.sft.merge:
        examples = merge(examples)
    else:
        selection = {**selection, "merge": False}
    recipe = plan.recipe(config.sft, config.seed)
    return learn.fine_tune(lab, method, iteration, examples, inputs, recipe, selection)


def sampling(settings: ConfigDict) -> Sampling:
    """How completions are drawn, from one section of the config."""
    return Sampling(settings.temperature, settings.top_p, settings.top_k)


def example(task_id: str, state: np.ndarray, target: np.ndarray) -> SFTExample:
    """One state with its target: the target's ids are learned, its end of turn among them."""
    ids = np.concatenate([state, target]).astype(np.int32)
    weights = np.zeros(len(ids), np.float32)
    weights[len(state) :] = 1.0
    return SFTExample(task_id, ids, weights)


def relabelled(rollout: Rollout, target: np.ndarray) -> list[SFTExample]:
    """Every state of a rollout with the same target."""
    return [example(rollout.task_id, rollout.state(t), target) for t in range(len(rollout.turns))]


def successful(rollouts: LabelledRollouts) -> list[Rollout]:
    """Those whose last turn is correct."""
    return [r for r, label in zip(rollouts.items, rollouts.labels, strict=True) if label[-1]]


def finals(rollouts: Sequence[Rollout]) -> list[SFTExample]:
    """Every state of each rollout with the rollout's own final completion as its target."""
    return [e for r in rollouts for e in relabelled(r, r.turns[-1].completion_ids)]


def merge(examples: Sequence[SFTExample]) -> list[SFTExample]:
    """Identical examples once, with their weights added: fewer steps.

    The weighted loss over all examples is the same. A step is not quite: it divides by the weight
    of its own batch, so that an example merged of many counts for less than in a batch apiece.
    """
    merged: dict[tuple[str, bytes], SFTExample] = {}
    for e in examples:
        key = (e.task_id, e.ids.tobytes())
        if key in merged:
            e = dataclasses.replace(e, weights=merged[key].weights + e.weights)
        merged[key] = e
    return list(merged.values())


def verifier_examples(visited: Sequence[LabelledRollouts]) -> list[VerifierExample]:
    """Every distinct completion of every turn of all iterations with its label.

    Its input is the first prompt and the completion, never the history (paper, section 3.2).
    """
    distinct = {}
    for rollouts in visited:
        for rollout, label in zip(rollouts.items, rollouts.labels, strict=True):
            for t, correct in enumerate(label):
                ids = verifier_input(rollout, t)
                example = VerifierExample(rollout.task_id, ids, correct)
                distinct[rollout.task_id, ids.tobytes()] = example
    return list(distinct.values())
