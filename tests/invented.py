"""An invented run: a work directory as a finished experiment leaves it, made in a moment."""

from __future__ import annotations

import json

import numpy as np

from mucode_jax.core.records import Grade, Rollout, Turn, dumps
from mucode_jax.report import words
from mucode_jax.rollouts import evaluate, search
from mucode_jax.runtime.files import checksum

WAYS = ("random", "pt", "lv", "pt+lv")
NASTY = '<script>alert("1")</script> & "quotes" </pre> \x1b[31m μ'


def turn(passed, message="again", code="def f(x):\n    return x", summary="f(1) returned 1"):
    """A turn whose ids are the bytes of its text: `Bytes` reads them."""
    grade = Grade("pass") if passed else Grade("fail", f"Wrong: {summary}", summary)

    def ids(string):
        return np.frombuffer(string.encode("utf-8", "replace"), np.uint8).astype(np.int32)

    completion = f"```python\n{code}\n```"
    logprobs = np.zeros(len(ids(completion)), np.float32)
    return Turn(ids(message), ids(completion), logprobs, False, code, grade)


def bytes_as_text(ids, first=False):
    return bytes(np.asarray(ids, np.uint8).tolist()).decode("utf-8")


# What stages took.
SECONDS = {
    "base/source": 0.2,
    "base/rollouts": 101.0,
    "base/rollouts_labels": 5.0,
    "base/verifier": 60.0,
    "mucode_1/generator": 80.0,
    "mucode_2/search_mini_test": 61.0,
}


COUNTED = {
    "base/rollouts": {
        **{"tokens": 12345, "executions": 400, "rollouts": 120},
        "sampling": {
            **{"prefilled": 5400, "decoded": 12345, "wasted": 1655, "occupancy": 0.93},
            **{"seconds": 50.0, "idle_seconds": 1.5, "tokens_per_second": 246.9},
        },
    },
    "base/verifier": {"loss": "bt"},
}


def put(stage, name, lines):
    stage.mkdir(parents=True)
    (stage / name).write_text("".join(line + "\n" for line in lines))
    finish(stage)


def took(directory, name):
    """Seconds of a stage, by its ledger if there is one."""
    ledger = directory / "stages" / name / "stage.json"
    return json.loads(ledger.read_text())["seconds"] if ledger.exists() else SECONDS[name]


def finish(stage):
    """Writes the ledger of a stage whose files are there."""
    files = {str(f.relative_to(stage)): checksum(f) for f in stage.rglob("*") if f.is_file()}
    seconds = SECONDS.get("/".join(stage.parts[-2:]), 1.0)
    record = {"settings": {}, "inputs": {}, "files": files, "seconds": seconds}
    (stage / "stage.json").write_text(json.dumps(record))


def make_run(directory, problems=8, searches=2, seed=0):
    """A work directory as a run of two generators leaves it, with invented outcomes.

    Returns its results.
    """
    random = np.random.default_rng(seed)
    evaluations = []
    for method, iteration, skill in (("base", 0, 0.3), ("mucode", 1, 0.38), ("mucode", 2, 0.45)):
        about = {"method": method, "iteration": iteration, "benchmark": "mini", "split": "test"}
        folder = directory / "stages" / words.folder(about)
        ease = np.clip(skill + 0.25 * random.standard_normal(problems), 0.02, 0.95)
        rollouts, labels = [], []
        for i, p in enumerate(ease):
            turns, label = [], []
            for t in range(3):
                label.append(bool(random.random() < p))
                passed = label[-1] or bool(random.random() < 0.1)
                message = f"Write f for problem {i}." if t == 0 else f"Wrong: {NASTY}"
                turns.append(turn(passed, message, f"def f(x):\n    return x + {t}  # {i}"))
                if passed:
                    break
            rollouts.append(Rollout("mini", f"test/0/{i}", 0, tuple(turns)))
            labels.append(label)
        put(folder / "greedy_mini_test", "rollouts.jsonl", map(dumps, rollouts))
        put(folder / "greedy_mini_test_labels", "pieces.jsonl", map(json.dumps, labels))
        evaluations.append(evaluate.greedy_evaluation(rollouts, labels, 3, "deployable", **about))
        if iteration == 1:
            continue
        found, marks = make_searches(random, ease, searches)
        each = searches * len(WAYS)
        lines = [search.encode(found[i : i + each]) for i in range(0, len(found), each)]
        put(folder / "search_mini_test", "pieces.jsonl", map(json.dumps, lines))
        put(folder / "search_mini_test_labels", "pieces.jsonl", map(json.dumps, marks))
        for choice in (*WAYS, "oracle"):
            source = "pt" if choice == "oracle" else choice
            own = [i for i, s in enumerate(found) if s.choice == source]
            evaluations.append(
                evaluate.search_evaluation(
                    [found[i] for i in own],
                    [marks[i] for i in own],
                    choice=choice,
                    turns=3,
                    protocol="deployable",
                    **about,
                )
            )
    results = {
        "schema": 1,
        "config": {"seed": seed, "generator": {"path": "elsewhere"}, "methods": ["mucode"]},
        "versions": {"jax": "0.10.2", "python": "3.11.2"},
        "seed": seed,
        "isolation": {"level": "landlock", "network": "none"},
        "backend": "cpu",
        "wall_seconds": 307.2,
        "stages": [
            {
                **{"name": name, "iteration": words.whose(name)["iteration"]},
                **{"seconds": took(directory, name), "tokens": 0, "executions": 0},
                **COUNTED.get(name, {}),
            }
            for name in SECONDS
        ],
        "verifiers": [
            {
                "method": "base",
                "iteration": 0,
                "loss": "bt",
                "auc": 0.81,
                "auc_within": 0.77,
                "auc_within_ci95": [0.7, 0.83],
                "top1": 0.725,
                "best_right": 0.725,
                "best_right_ci95": [0.6, 0.82],
                "best_right_chance": 0.39,
                "mixed": 40,
                "brier": None,
                "pairs": 1200,
            },
            {
                "method": "mucode",
                "iteration": 1,
                "loss": "bce",
                "auc": None,
                "auc_within": None,
                "auc_within_ci95": None,
                "top1": None,
                "best_right": None,
                "best_right_ci95": None,
                "best_right_chance": None,
                "mixed": 0,
                "brier": 0.1875,
                "pairs": 2400,
            },
        ],
        "evaluations": evaluations,
    }
    return results


def make_searches(random, ease, searches):
    found, marks = [], []
    for i, p in enumerate(ease):
        for index in range(searches):
            shared = []
            for t in range(3):
                right = random.random(5) < p
                passed = right | (random.random(5) < 0.12)
                scores = (right * 1.5 + random.standard_normal(5)).astype(np.float32)
                shared.append((tuple(turn(bool(x), code=f"{i}{t}") for x in passed), scores, right))
            for choice in WAYS:
                turns, of_search = [], []
                for candidates, scores, right in shared:
                    chosen = search.choose(candidates, scores, choice, set(), random)
                    turns.append(search.SearchTurn(candidates, scores, chosen))
                    of_search.append([bool(x) for x in right])
                    if candidates[chosen].grade.passed:
                        break
                found.append(search.Search(f"test/0/{i}", index, choice, tuple(turns)))
                marks.append(of_search)
    return found, marks
