"""Multi-STaR: multi-turn rollouts, fine-tuning on the successful ones, in four forms.

`multi_star`: every state of a successful rollout gets the rollout's final completion as its target
(the published code's form). `multi_star_all`: the loss lies on each of its own turns.
`multi_star_balanced`: as `multi_star`, each solved problem with the same weight, the control that
tells relabelling from reweighting. `rft_lv`: the rollout that the verifier scores best, correct or
not (the paper's rejection fine-tuning by the learned verifier).
"""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
from ml_collections import ConfigDict

from mucode_jax.algorithms import common
from mucode_jax.core.records import Benchmark, Rollout, SFTExample
from mucode_jax.lab import Lab, sample


def iterate(
    config: ConfigDict, lab: Lab, benchmark: Benchmark, form: str
) -> Iterator[common.Trained]:
    """Runs one of the four forms; yields the generator of each iteration as it is finished."""
    generator = lab.base
    visited, inputs, examples = [], [], []
    for i in range(config.iterations):
        rollouts = common.roll_out(config, lab, benchmark, generator)
        visited.append(rollouts)
        inputs.append(rollouts)
        if form == "rft_lv":
            verifier = common.train_verifier(config, lab, visited)
            if verifier is not None:  # without one nothing is better than the rest
                scores = sample.scores(lab, verifier, rollouts)
                inputs.append(scores)
                examples += best_scored(rollouts.items, scores.items)
        else:
            correct = common.successful(rollouts)
            examples += own_turns(correct) if form == "multi_star_all" else common.finals(correct)
        selected = balance(examples) if form == "multi_star_balanced" else examples
        generator = common.fine_tune(config, lab, form, i + 1, selected, inputs, {})
        yield common.Trained(generator, visited)


def own_turns(rollouts: Sequence[Rollout]) -> list[SFTExample]:
    """Each rollout as one conversation, every completion of it learned."""
    examples = []
    for rollout in rollouts:
        ids, weights = [], []
        for turn in rollout.turns:
            ids += [turn.prompt_ids, turn.completion_ids]
            weights += [np.zeros(len(turn.prompt_ids)), np.ones(len(turn.completion_ids))]
        ids, weights = np.concatenate(ids), np.concatenate(weights)
        examples.append(
            SFTExample(rollout.task_id, ids.astype(np.int32), weights.astype(np.float32))
        )
    return examples


def balance(examples: Sequence[SFTExample]) -> list[SFTExample]:
    """The same examples, weighted so that every problem counts alike and the total is unchanged."""
    count = Counter(e.task_id for e in examples)
    if not count:
        return []
    share = len(examples) / len(count)
    return [
        dataclasses.replace(e, weights=e.weights * np.float32(share / count[e.task_id]))
        for e in examples
    ]


def best_scored(rollouts: Sequence[Rollout], scores: Sequence[np.ndarray]) -> list[SFTExample]:
    """Per problem, the rollout whose final completion scores highest, with all its states."""
    problems = defaultdict(list)
    for rollout, score in zip(rollouts, scores, strict=True):
        problems[rollout.task_id].append((float(score[-1]), -rollout.index, rollout))
    return common.finals([max(ranked, key=lambda r: r[:2])[2] for ranked in problems.values()])
