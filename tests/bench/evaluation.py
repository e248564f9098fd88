"""How long it takes to evaluate recorded samples: MBPP test problems × 5 candidates × 3 turns.

    python tests/bench/evaluation.py --data ../shared/data/mbpp.jsonl

Every candidate is a different program (the reference solution, or it with one operator or number
exchanged, not within a `while` loop: a program that never ends takes its ten seconds however it is
evaluated), so that no outcome is found twice. All are executed on the public tests, those that pass
on the private ones too, and accuracies are computed as for a run.
"""

from __future__ import annotations

import argparse
import collections
import pathlib
import random
import sys
import time

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from mucode_jax import benchmarks
from mucode_jax.core.records import Turn
from mucode_jax.rollouts import evaluate, grading
from mucode_jax.rollouts.search import Search, SearchTurn
from mucode_jax.sandbox import Pool

TURNS, N = 3, 5
EXCHANGED = {"+": "-", "-": "+", "<": "<=", ">": ">=", "==": "!=", "0": "1", "1": "2", "2": "3"}


def candidates(code: str, count: int, seed: str) -> list[str]:
    """`count` different programs; about a third of them are right."""
    draw = random.Random(seed)
    end = code.index("while") if "while" in code else len(code)
    places = [(p, old) for old in EXCHANGED for p in range(end) if code.startswith(old, p)]
    found = []
    for i in range(count):
        text = code
        if places and draw.random() < 2 / 3:
            place, old = draw.choice(places)
            text = code[:place] + EXCHANGED[old] + code[place + len(old) :]
        found.append(f"{text}\n# {i}\n")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="mbpp.jsonl")
    parser.add_argument("--workers", type=int, help="processes (default: one a core)")
    args = parser.parse_args()
    benchmark = benchmarks.load("mbpp", "test", data=args.data)
    problems = {p.task_id: p for p in benchmark.problems}
    codes = [
        (problem, code)
        for problem in benchmark.problems
        for code in candidates(benchmark.solutions[problem.task_id], TURNS * N, problem.task_id)
    ]
    none, zero = np.zeros(1, np.int32), np.zeros(1, np.float32)
    with Pool(workers=args.workers) as pool:
        began = time.monotonic()
        grader = grading.public_grader(pool)
        futures = [grader.submit(problem, code) for problem, code in codes]
        grades = [grading.grade_of(future) for future in futures]
        private = grading.private_grader(pool, benchmark.private)
        graded = [(p, code, grade) for (p, code), grade in zip(codes, grades, strict=True)]
        flat = iter(grading.label_codes(graded, benchmark.private, private))
        turns = iter(Turn(none, none, zero, False, code, grade) for _, code, grade in graded)
        searches = []
        for task_id in problems:
            of_problem = []
            for _ in range(TURNS):
                some = tuple(next(turns) for _ in range(N))
                chosen = max(range(N), key=lambda i: some[i].grade.passed)
                of_problem.append(SearchTurn(some, None, chosen))
            searches.append(Search(task_id, 0, "pt", tuple(of_problem)))
        labels = [[[next(flat) for _ in t.candidates] for t in s.turns] for s in searches]
        found = {
            choice: evaluate.search_evaluation(
                searches, labels, choice=choice, turns=TURNS, protocol="deployable"
            )["per_turn"]
            for choice in ("pt", "oracle")
        }
        seconds = time.monotonic() - began
    statuses = collections.Counter(grade.status for grade in grades)
    print(
        f"{len(problems)} problems, {grader.executions} public and {private.executions} private "
        f"executions in {seconds:.0f} s: {dict(statuses)}; accuracy by turn {found}"
    )


if __name__ == "__main__":
    main()
