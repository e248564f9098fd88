r"""A command of this commit beside the same command of another, run in turns: time, CPU, ratio.

python tests/bench/against.py 3591634 -- \
    -m mucode_jax.main --config configs/quickstart.py --workdir {}/w
python tests/bench/against.py 3591634 --repeats 5 -- \
    -m mucode_jax.sandbox --programs P --out {}/out

What follows `--` are Python's arguments. `{}` is a folder of each run's own. The
other commit gets a worktree and an environment of its own, with the extras of --extras; with --keep
both stay in that folder, for the next time. Lines of the command's output that --show matches are
printed. CPU seconds are those of all processes that the command has waited for.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).resolve().parents[2]


@contextlib.contextmanager
def environment(commit: str, folder: pathlib.Path, extras: str) -> Iterator[tuple[str, str]]:
    """(interpreter, checkout) of another commit; the worktree goes afterwards, `folder` stays."""
    checkout, venv = folder / "checkout", folder / "venv"
    _git("worktree", "add", "--force", "--detach", str(checkout), commit)
    try:
        if not venv.exists():
            subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        pip = [venv / "bin/python", "-m", "pip", "install", "-q", "-e", f"{checkout}{extras}"]
        subprocess.run(pip, check=True)
        yield str(venv / "bin/python"), str(checkout)
    finally:
        _git("worktree", "remove", "--force", str(checkout))


def _git(*arguments: str) -> None:
    subprocess.run(["git", "-C", ROOT, *arguments], check=True, capture_output=True)


def measured(python: str, checkout: str, command: list[str], show: str) -> tuple[float, float]:
    """(wall seconds, CPU seconds) of one run from a checkout; raises SystemExit where it failed."""
    with tempfile.TemporaryDirectory() as folder:
        words = [python, *(word.replace("{}", folder) for word in command)]
        variables = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        printed = pathlib.Path(folder, "printed")
        with printed.open("wb") as output:
            began = time.perf_counter()
            running = subprocess.Popen(
                words,
                cwd=checkout,
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            _, status, usage = os.wait4(running.pid, 0)
            wall = time.perf_counter() - began
        lines = printed.read_text(encoding="utf-8", errors="replace").splitlines()
    if status:
        print(*lines[-20:], sep="\n")
        raise SystemExit(f"{words} ended with status {os.waitstatus_to_exitcode(status)}")
    for line in lines if show else ():
        if re.search(show, line):
            print(f"  {line}")
    return wall, usage.ru_utime + usage.ru_stime


def main() -> None:
    """The command line; see the module's text."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("commit")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--extras", default="", help="of the other's setup.py, like [test]")
    parser.add_argument("--keep", type=pathlib.Path, help="folder for the environment")
    parser.add_argument("--show", default="", help="a regular expression")
    parser.add_argument("command", nargs="+", help="arguments of python, behind --")
    given = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = given.keep or pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        other = stack.enter_context(environment(given.commit, folder.resolve(), given.extras))
        sides = {given.commit: other, "this": (sys.executable, str(ROOT))}
        seen: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
        for _ in range(given.repeats):
            for name, (python, checkout) in sides.items():
                wall, cpu = measured(python, checkout, given.command, given.show)
                print(f"{name}: {wall:.1f} s, {cpu:.1f} CPU-s", flush=True)
                seen[name].append((wall, cpu))
    for i, what in enumerate(("wall time", "CPU time")):
        ratios = [now[i] / before[i] for before, now in zip(*seen.values(), strict=True)]
        print(f"{what}, this / {given.commit}: {statistics.median(ratios):.3f} (median)")


if __name__ == "__main__":
    main()
