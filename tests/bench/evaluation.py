"""How long it takes to evaluate recorded samples: MBPP test problems × 5 candidates × 3 turns.

    python tests/bench/evaluation.py --data ../shared/data/mbpp.jsonl

Every candidate is a different program (the reference solution, or it with one operator or number
exchanged), so that no grade is found in the cache; `python -m mucode_jax.grade` runs them all on
public and private tests.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
EXCHANGED = {"+": "-", "-": "+", "<": "<=", ">": ">=", "==": "!=", "0": "1", "1": "2", "2": "3"}


def candidates(code: str, count: int, seed: str) -> list[str]:
    """`count` different programs; about a third of them are right."""
    draw = random.Random(seed)
    found = []
    for i in range(count):
        text = code
        places = [
            (p, old) for old in EXCHANGED for p in range(len(code)) if code.startswith(old, p)
        ]
        if places and draw.random() < 2 / 3:
            place, old = draw.choice(places)
            text = code[:place] + EXCHANGED[old] + code[place + len(old) :]
        found.append(f"{text}\n# {i}\n")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=pathlib.Path, required=True, help="mbpp.jsonl")
    parser.add_argument("--each", type=int, default=15, help="candidates a problem")
    args = parser.parse_args()
    rows = [json.loads(line) for line in args.data.read_text().splitlines()]
    rows = [row for row in rows if 11 <= row["task_id"] <= 510]
    with tempfile.TemporaryDirectory() as folder:
        given, out = (pathlib.Path(folder) / name for name in ("in.jsonl", "out.jsonl"))
        lines = [
            {"task_id": row["task_id"], "code": code}
            for row in rows
            for code in candidates(row["code"], args.each, str(row["task_id"]))
        ]
        given.write_text("".join(json.dumps(line) + "\n" for line in lines))
        began = time.monotonic()
        command = [sys.executable, "-m", "mucode_jax.grade", "--benchmark", "mbpp"]
        command += ["--data", str(args.data), "--candidates", str(given), "--out", str(out)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        subprocess.run(command, check=True, env=environment)
        seconds = time.monotonic() - began
        graded = [json.loads(line) for line in out.read_text().splitlines()]
    statuses = collections.Counter(line["public"]["status"] for line in graded)
    print(f"{len(rows)} problems, {len(graded)} candidates in {seconds:.0f} s: {dict(statuses)}")


if __name__ == "__main__":
    main()
