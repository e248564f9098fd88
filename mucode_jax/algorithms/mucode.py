"""μCode: expert iteration on a one-step recoverable problem (paper, section 3 and Algorithm 1).

From any state of a conversation the right code is one turn away, so no credit has to be assigned
over turns: a verifier scores single completions, the best one seen for a problem becomes the target
of *every* state visited on that problem, and the generator imitates it. The best one is sought in
the iteration's own rollouts. With `expert.pool` = `all` it is sought in those of all iterations so
far, all scored by the latest verifier, and the states of earlier iterations get new targets too.

    for i = 0 … M-1
      roll out π_i                                 collect
      label every turn, by all tests               labels
      train the verifier R(x, y)                   on all labelled turns so far
      y*(x) = argmax of R over the turns seen      local_search
      target of every visited state := y*(x)       relabel
      fine-tune the base on all targets so far     → π_{i+1}
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from ml_collections import ConfigDict

from mucode_jax.algorithms import common
from mucode_jax.core import keys
from mucode_jax.core.records import Benchmark, Rollout, SFTExample
from mucode_jax.lab import Lab, sample
from mucode_jax.rollouts.grading import Label

Scores = Sequence[np.ndarray]  # per rollout: float32 [turns], the verifier's


def iterate(config: ConfigDict, lab: Lab, benchmark: Benchmark) -> Iterator[common.Trained]:
    """Runs μCode; yields the generator of each iteration as it is finished."""
    generator = lab.base
    visited, inputs = [], []
    examples: list[SFTExample] = []
    for i in range(config.iterations):
        rollouts = common.roll_out(config, lab, benchmark, generator)
        visited.append(rollouts)
        verifier = common.train_verifier(config, lab, visited)
        pool = [rollouts]
        if config.expert.pool == "all":  # every state so far gets its target anew
            pool, examples, inputs = visited, [], []
        scores = [sample.scores(lab, verifier, searched) for searched in pool]
        experts = local_search(
            [rollout for searched in pool for rollout in searched.items],
            [label for searched in pool for label in searched.labels],
            [score for scored in scores for score in scored.items],
            expert=config.expert.kind,
            scope=config.expert.scope,
            drop_unsolved=config.expert.drop_unsolved,
            key=(config.seed, "expert", i),
        )
        for searched, scored in zip(pool, scores, strict=True):
            examples += relabel(
                searched.items,
                searched.labels,
                scored.items,
                experts,
                max_unsuccessful=config.expert.max_unsuccessful,
            )
            inputs += [searched, scored]
        selection = config.expert.to_dict()
        if config.expert.pool == "iteration":  # runs that began before there was a choice go on
            del selection["pool"]
        generator = common.fine_tune(config, lab, "mucode", i + 1, examples, inputs, selection)
        yield common.Trained(generator, visited)


def local_search(
    rollouts: Sequence[Rollout],
    labels: Sequence[Label],
    scores: Scores,
    *,
    expert: str,
    scope: str,
    drop_unsolved: bool,
    key: tuple[int | str, ...],
) -> dict[str, np.ndarray]:
    """The local-search expert: the best completion seen for each problem (paper, equation 4).

    Args:
      rollouts: this iteration's, or all iterations' so far.
      labels: per rollout and turn, correct or not.
      scores: per rollout and turn, the verifier's.
      expert: `lv` the highest score; `ov` a correct one, at random; `ov+lv` correct ones first, the
        highest score among those.
      scope: `all_turns`, or only the `final` turn of each rollout.
      drop_unsolved: a problem without a correct completion gets no expert.
      key: for the random choice of `ov` and for ties.

    Returns:
      task_id -> int32 [C], the expert's completion ids.
    """
    seen = defaultdict(list)  # task_id -> [(correct, score, completion ids)]
    for rollout, label, score in zip(rollouts, labels, scores, strict=True):
        first = 0 if scope == "all_turns" else len(rollout.turns) - 1
        for t in range(first, len(rollout.turns)):
            completion = rollout.turns[t].completion_ids
            seen[rollout.task_id].append((label[t], float(score[t]), completion))
    rank = {
        "lv": lambda correct, score: (score,),
        "ov": lambda correct, score: (correct,),
        "ov+lv": lambda correct, score: (correct, score),
    }[expert]
    experts = {}
    for task_id, candidates in seen.items():
        solved = any(correct for correct, _, _ in candidates)
        if not solved and (drop_unsolved or expert == "ov"):
            continue
        ties = keys.rng(*key, task_id).permutation(len(candidates))
        ranked = [
            (*rank(correct, score), tie, completion)
            for (correct, score, completion), tie in zip(candidates, ties, strict=True)
        ]
        experts[task_id] = max(ranked, key=lambda entry: entry[:-1])[-1]
    return experts


def relabel(
    rollouts: Sequence[Rollout],
    labels: Sequence[Label],
    scores: Scores,
    experts: Mapping[str, np.ndarray],
    *,
    max_unsuccessful: int,
) -> list[SFTExample]:
    """Every visited state with its target (paper, Algorithm 1, line 7).

    A successful rollout (its final turn is correct) keeps its own final completion as the target of
    all its states. Of the unsuccessful ones of a problem, the `max_unsuccessful` with the highest
    final score get the expert's completion in all their states.
    """
    examples = []
    unsuccessful = defaultdict(list)
    for rollout, label, score in zip(rollouts, labels, scores, strict=True):
        if label[-1]:
            examples += common.relabelled(rollout, rollout.turns[-1].completion_ids)
        elif rollout.task_id in experts:
            unsuccessful[rollout.task_id].append((-float(score[-1]), rollout.index, rollout))
    for task_id, ranked in unsuccessful.items():
        for _, _, rollout in sorted(ranked, key=lambda entry: entry[:2])[:max_unsuccessful]:
            examples += common.relabelled(rollout, experts[task_id])
    return examples
