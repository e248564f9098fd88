"""The pool: many programs at once, lost workers, bounds, and nothing left behind."""

from __future__ import annotations

import importlib.util
import os
import pathlib
import platform
import signal
import subprocess
import sys
import threading
import time
import venv

import numpy
import pytest

from mucode_jax.core.records import Grade, Tests
from mucode_jax.sandbox import IsolationError, Outcome, Pool, isolation, make_runner, pool, probe

ROOT = pathlib.Path(__file__).resolve().parents[2]
BENCH = ROOT / "tests" / "bench" / "sandbox.py"
ADD = "def add(a, b):\n    return a + b\n"
ADD_TESTS = Tests(("assert add(1, 2) == 3",))


def bench():
    spec = importlib.util.spec_from_file_location("bench_sandbox", BENCH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def two():
    with Pool(workers=2) as made:
        yield made


def test_a_burst_returns_every_outcome_to_its_own_future(two):
    futures = [
        two.submit(f"def f(): return {i}", Tests((f"assert f() == {i}",))) for i in range(60)
    ]
    futures += [two.submit("def f(): return -1", Tests(("assert f() == 0",))) for _ in range(4)]
    assert [f.result(timeout=300).status for f in futures] == ["pass"] * 60 + ["fail"] * 4


def test_submit_waits_while_too_many_programs_are_in_flight():
    with Pool(workers=1, in_flight=2) as small:
        slow = Tests(timeout_s=30.0)
        first = small.submit("import time\ntime.sleep(0.5)", slow)
        small.submit(ADD, ADD_TESTS)
        began = time.monotonic()
        third = small.submit(ADD, ADD_TESTS)
        assert first.done() and time.monotonic() > began
        assert third.result(timeout=120).status == "pass"


def test_a_burst_of_256_does_not_wait():
    with Pool(workers=1) as small:
        blocker = small.submit("import time\ntime.sleep(100)", Tests(timeout_s=120.0))
        futures = [small.submit(ADD, ADD_TESTS) for _ in range(256)]
        assert not blocker.done()
        for future in futures:
            future.cancel()


def test_a_killed_worker_costs_no_program_its_verdict():
    with Pool(workers=1) as small:
        assert small.submit(ADD, ADD_TESTS).result(timeout=120).status == "pass"
        future = small.submit("import time\ntime.sleep(1)\n" + ADD, ADD_TESTS)
        time.sleep(0.3)
        for worker in list(small._workers):
            worker.process.kill()
        assert future.result(timeout=120).status == "pass"


def test_a_worker_that_is_always_lost_is_infra_and_never_wrong_code(monkeypatch):
    with Pool(workers=1) as small:
        monkeypatch.setattr(pool._Worker, "run", _lose)
        outcome = small.submit(ADD, ADD_TESTS).result(timeout=120)
    assert outcome.status == "infra"
    assert "lost on purpose" in outcome.summary


def _lose(self, job, patience):
    raise pool._Lost("lost on purpose")


def test_a_job_that_cannot_be_handed_over_is_infra_and_the_pool_goes_on(two):
    never = Tests(("assert add(1, 2) == 3",), timeout_s=1e12)  # beyond what a socket takes
    lost = two.submit(ADD, never).result(timeout=60)
    assert lost.status == "infra" and "OverflowError" in lost.summary
    assert two.submit(ADD, ADD_TESTS).result(timeout=60).status == "pass"


def test_a_broken_test_is_infra_and_not_tried_again(two):
    outcome = two.submit(ADD, Tests(("assert add(1, 2) ==",))).result(timeout=120)
    assert outcome.status == "infra"
    assert "test 1 is no Python" in outcome.summary


def test_closing_leaves_no_process_and_cancels_what_waits():
    small = Pool(workers=2)
    futures = [small.submit("import time\ntime.sleep(9)", Tests(timeout_s=30)) for _ in range(6)]
    sessions = {worker.process.pid for worker in small._workers}
    small.close()
    assert all(future.done() for future in futures)
    assert gone(sessions)
    with pytest.raises(RuntimeError, match="closed"):
        small.submit(ADD, ADD_TESTS)


def gone(sessions, patience_s=20.0):
    """Whether every process of `sessions` ends within a while."""
    until = time.monotonic() + patience_s
    while time.monotonic() < until:
        if not any(session_of(entry) in sessions for entry in os.listdir("/proc")):
            return True
        time.sleep(0.05)
    return False


def session_of(entry):
    try:
        fields = pathlib.Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
        return int(fields[3]) if fields[0] != "Z" else None
    except (OSError, IndexError):
        return None


def test_a_killed_caller_leaves_no_process():
    code = (
        "from mucode_jax.sandbox import Pool\nfrom mucode_jax.core.records import Tests\n"
        "p = Pool(workers=1)\np.submit('while True: pass', Tests(timeout_s=60))\n"
        "import time; time.sleep(0.5)\n"
        "print([w.process.pid for w in p._workers][0], flush=True)\ntime.sleep(60)\n"
    )
    caller = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(BENCH.parents[2])},
    )
    with caller:
        session = int(caller.stdout.readline())
        caller.send_signal(signal.SIGKILL)
    assert gone({session})


def test_it_works_after_jax_was_imported_and_used():
    code = (
        "import warnings; warnings.simplefilter('error')\n"
        "import jax.numpy as jnp\nassert int(jnp.arange(4).sum()) == 6\n"
        "from mucode_jax.sandbox import Pool\nfrom mucode_jax.core.records import Tests\n"
        "with Pool(workers=1) as p:\n"
        "    print(p.submit('import sys\\nprint(\"jax\" in sys.modules)', Tests()).result())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(BENCH.parents[2]), "JAX_PLATFORMS": "cpu"},
    )
    assert "status='pass'" in done.stdout, done.stderr
    assert "stdout='False\\n'" in done.stdout


def test_many_programs_with_workers_killed_on_the_way_stay_flat():
    """2,000 programs; `python tests/bench/sandbox.py endurance` runs 100,000."""
    seen = bench().endurance(2_000, killed=0.01, workers=2)
    assert seen["statuses"] == {"as expected": 2_000}
    assert (seen["lost"], seen["twice"], seen["left over"]) == (0, 0, 0)
    assert seen["kills"] > 5
    early, late = seen["footprints"][2], seen["footprints"][-1]
    assert late["parent MiB"] <= early["parent MiB"] + 16
    assert late["descriptors"] <= early["descriptors"] + 4
    assert late["threads"] == early["threads"]
    assert late["processes"] <= 2 * 6


def test_random_bytes_and_mutated_programs_never_raise_and_never_hang():
    """500 of them; `python tests/bench/sandbox.py fuzz` runs 10,000."""
    statuses = bench().fuzz(500, workers=2)
    assert sum(statuses.values()) == 500
    assert "infra" not in statuses


def test_the_runner_of_the_attack_suite_gives_verdict_and_output():
    runner = make_runner()
    try:
        result = runner.run(ADD + "print('hello')", ["assert add(1, 1) == 2"], 10.0)
    finally:
        runner.close()
    assert result == {"verdict": "pass", "stdout": "hello\n", "stderr": ""}


def test_an_outcome_becomes_the_grade_of_a_turn():
    outcome = Outcome("fail", "long", "short", "out", "err", 0.1)
    assert outcome.grade() == Grade("fail", "long", "short")


def test_every_level_is_probed_and_says_why_not():
    reasons = probe()
    assert list(reasons) == list(isolation.LEVELS)
    assert reasons["rlimits"] == ""


def test_the_pool_says_what_isolation_it_reached(two):
    assert two.isolation["level"] in ("namespaces", "landlock")
    assert two.isolation["seccomp"] is True
    assert two.isolation["numpy"] == numpy.__version__
    assert two.isolation["accepted"] == "landlock"


def test_a_refusal_says_what_is_missing_how_to_get_it_and_the_flag_that_accepts_less(monkeypatch):
    def refuse(self):
        raise pool._Lost("landlock: Function not implemented")

    monkeypatch.setattr(pool._Worker, "wait_until_ready", refuse)
    monkeypatch.setattr(pool, "_reason_against", lambda level, python: "")
    with pytest.raises(IsolationError) as caught:
        Pool(workers=1)
    text = str(caught.value)
    assert "\n" not in text
    assert "landlock: Function not implemented" in text
    assert "user namespaces" in text
    assert "--isolation rlimits" in text and "--config.sandbox.isolation=rlimits" in text


def test_a_shared_folder_is_not_to_be_had_at_a_weaker_level(monkeypatch):
    def refuse(self):
        raise pool._Lost("unshare: Operation not permitted")

    monkeypatch.setattr(pool._Worker, "wait_until_ready", refuse)
    with pytest.raises(IsolationError, match="namespaces or stronger.*Nothing weaker works"):
        Pool(workers=1, share_folder=True)


def test_programs_and_tests_may_have_an_interpreter_of_their_own(tmp_path):
    venv.create(tmp_path, symlinks=True)
    python = tmp_path / "bin" / "python"
    (site,) = tmp_path.glob("lib/python*/site-packages")
    (site / "numpy.pth").write_text(str(pathlib.Path(numpy.__file__).parents[1]))
    code = "import sys, numpy\ndef f(): return sys.prefix, numpy.__version__\n"
    test = f"import sys\nassert f()[0] == sys.prefix == {str(tmp_path)!r}"
    with Pool(workers=1, python=str(python)) as own:
        outcome = own.submit(code, Tests((test,))).result(timeout=120)
        versions = own.isolation["python"], own.isolation["numpy"]
    assert outcome.status == "pass", outcome
    assert versions == (platform.python_version(), numpy.__version__)


def test_an_interpreter_that_cannot_run_programs_is_refused(tmp_path):
    with pytest.raises(ValueError, match="'/none/python' cannot be started: .*No such file"):
        Pool(workers=1, python="/none/python")
    venv.create(tmp_path, symlinks=True)
    bare = str(tmp_path / "bin" / "python")
    with pytest.raises(ValueError, match="with numpy.: ModuleNotFoundError: No module named"):
        Pool(workers=1, python=bare)


def test_another_machine_than_x86_64_is_told_that_filters_are_not_written_for_it(monkeypatch):
    monkeypatch.setattr(isolation.system, "is_supported", lambda: False)
    with pytest.raises(OSError, match="x86-64"):
        isolation.enter("landlock", isolation.view())


@pytest.mark.parametrize(
    "settings", [{"isolation": "bubblewrap"}, {"feedback": "all"}, {"workers": 0}]
)
def test_a_setting_that_is_not_one_is_refused(settings):
    with pytest.raises(ValueError):
        Pool(**settings)


def test_threads_may_submit_side_by_side(two):
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(two.submit(ADD, ADD_TESTS).result(300).status))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == ["pass"] * 8


def test_closed_standard_streams_are_no_hindrance():
    code = (
        "from mucode_jax.core.records import Tests\n"
        "from mucode_jax.sandbox import Pool\n"
        "with Pool(workers=1) as pool:\n"
        "    done = pool.submit('x = 1', Tests(('assert x == 1',))).result(timeout=60)\n"
        "raise SystemExit(0 if done.status == 'pass' else 3)\n"
    )
    done = subprocess.run(["sh", "-c", 'exec "$0" -c "$1" <&- >&-', sys.executable, code], cwd=ROOT)
    assert done.returncode == 0
