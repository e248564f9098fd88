"""ClassEval's reference classes pass their own tests (FudanSELab/ClassEval, MIT).

Skipped without the file: MUCODE_CLASSEVAL names `data/ClassEval_data.json` of that repository.
"""

from __future__ import annotations

import concurrent.futures
import json
import os
import pathlib
import subprocess
import sys

import pytest

from mucode_jax.core.records import Tests
from mucode_jax.sandbox import Pool, probe


@pytest.fixture(scope="module")
def classes():
    """task id -> (reference, tests) of the classes that pass in plain Python, as far as it goes."""
    path = os.environ.get("MUCODE_CLASSEVAL", "")
    if not pathlib.Path(path).is_file():
        pytest.skip("no file of ClassEval (set MUCODE_CLASSEVAL)")
    rows = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    return {
        row["task_id"]: (
            "\n".join([*row["import_statement"], row["solution_code"]]),
            row["test"],
        )
        for row in rows
    }


@pytest.fixture(scope="module")
def plain(classes, tmp_path_factory):
    """The task ids of the classes whose tests pass in plain Python."""

    def passes(task_id):
        folder = tmp_path_factory.mktemp(task_id)
        (folder / "case.py").write_text("\n".join(classes[task_id]))
        try:
            done = subprocess.run(
                [sys.executable, "-m", "unittest", "case"],
                cwd=folder,
                capture_output=True,
                timeout=300,
            )
        except subprocess.TimeoutExpired:
            return False
        return done.returncode == 0

    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        return {x for x, good in zip(classes, threads.map(passes, classes), strict=True) if good}


@pytest.mark.slow
@pytest.mark.parametrize(("share_folder", "least"), [(False, 80), (True, 88)])
def test_the_references_pass(classes, plain, share_folder, least):
    if share_folder and (reason := probe()["namespaces"]):
        pytest.skip(f"no namespaces here: {reason}")
    with Pool(workers=2, share_folder=share_folder) as pool:
        futures = {
            task_id: pool.submit(reference, Tests((test,), timeout_s=60.0))
            for task_id, (reference, test) in classes.items()
        }
        outcomes = {task_id: future.result(timeout=3000) for task_id, future in futures.items()}
    failed = {x: f"{o.status}: {o.summary}" for x, o in outcomes.items() if o.status != "pass"}
    assert len(plain) - len(failed.keys() & plain) >= least * len(plain) / 90, failed
