"""How long a run takes: before it the most that it can sample, during it the time that is left.

The stages still to do are counted by kind. Each is taken to last as long as the finished ones of
its kind; the first of them, which compiles, counts only where it is the only one.
"""

from __future__ import annotations

import collections
import re
from collections.abc import Sequence

from ml_collections import ConfigDict

from mucode_jax.report import words
from mucode_jax.rollouts.search import goes_by_score
from mucode_jax.runtime.ledger import Stage


def stages(config: ConfigDict) -> collections.Counter[str]:
    """How many stages of each kind an experiment has; labels are counted with what they label."""
    m, methods = config.iterations, set(config.methods)
    single, guided = methods & {"star", "ssd"}, methods & {"mucode", "rft_lv"}
    several = methods - single
    searched = set(config.search.methods) & (methods | {"base"})
    verified = any(map(goes_by_score, config.search.choices))

    def verifier(method: str, i: int) -> tuple[str, int, bool]:
        """It is named after the generator whose rollouts it saw last; of single turns, others."""
        return ("base", 0, method in single) if i == 0 else (method, i, False)

    verifiers = {verifier(method, i) for method in guided for i in range(m)}
    scores = len(verifiers)
    if "mucode" in methods and config.expert.pool == "all":  # earlier rollouts are scored again
        scores += m * (m - 1) // 2
    if verified:
        verifiers |= {verifier(g, 0 if g == "base" else m - 1) for g in searched}
    generators = 1 + len(methods) * m
    evaluated = 1 + len(config.evaluation.also)
    return +collections.Counter(
        rollouts=bool(several or (verified and "base" in searched))
        + bool(single)
        + len(methods) * (m - 1),
        verifier=len(verifiers),
        scores=scores,
        generator=len(methods) * m,
        greedy=generators * evaluated,
        search=len(searched) * evaluated,
    )


def most(config: ConfigDict, problems: int, held_out: int) -> str:
    """ "at most 12 345 completions, …": an upper bound of what is sampled, in words.

    Args:
      config: of the experiment.
      problems: to train on.
      held_out: to evaluate on, of all benchmarks.
    """
    r, s, counts = config.rollout, config.search, stages(config)
    evaluated = 1 + len(config.evaluation.also)
    # The ways to choose share the first turn's candidates.
    ways = len({"pt" if choice == "oracle" else choice for choice in s.choices})
    a_search = s.searches * s.n * (1 + ways * (r.turns - 1))
    completions = (
        counts["rollouts"] * problems * r.n * r.turns
        + counts["greedy"] // evaluated * held_out * r.turns
        + counts["search"] // evaluated * held_out * a_search
    )
    tokens = completions * r.max_new_tokens
    return (
        f"at most {words.count(completions)} completions ({words.count(tokens)} tokens), each "
        "executed on its public and, to label it, on its private tests"
    )


def left(config: ConfigDict, done: Sequence[Stage]) -> str:
    """ "about 5 min left, …" from what was measured; "" where nothing is left to do.

    `done`: the run's stages so far, labels included.
    """
    measured: dict[str, list[tuple[float, int]]] = collections.defaultdict(list)
    for stage in done:
        kind = _kind(stage.name)
        cost = stage.record["seconds"], stage.record["counts"].get("tokens", 0)
        if stage.name.endswith("_labels"):
            before = measured[kind].pop()
            cost = before[0] + cost[0], before[1] + cost[1]
        measured[kind].append(cost)
    todo = stages(config) - collections.Counter({k: len(costs) for k, costs in measured.items()})
    untimed = [words.work(kind) for kind in todo if kind not in measured]
    if not todo:
        return ""
    time = sampled = 0.0
    for kind in todo.keys() & measured.keys():
        costs = measured[kind][1:] or measured[kind]
        time += todo[kind] * sum(seconds for seconds, _ in costs) / len(costs)
        sampled += todo[kind] * sum(tokens for _, tokens in costs) / len(costs)
    left = f"about {words.duration(time)} and {words.count(sampled)} tokens left"
    return left + (f", beside {', '.join(untimed)}" if untimed else "")


def _kind(name: str) -> str:
    kind = re.split(r"[^a-z]", name.rpartition("/")[2])[0]
    return "rollouts" if kind == "singles" else kind
