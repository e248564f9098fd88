"""Changes one setting after the other: a finished run, run again, must end like a fresh one.

    python tests/bench/reruns.py [SETTING …]

At the smallest scale, in one process. Each line says whether results.json is the same, whether it
differs from that before the change, and how many stages the rerun kept of those there were.
"""

from __future__ import annotations

import contextlib
import io
import pathlib
import shutil
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from tests import micro

_TRAINING = {
    "epochs": 2,
    "batch": 2,
    "rows": 0,
    "length": 170,
    "microbatches": 2,
    "lora_rank": 2,
    "learning_rate": 1e-2,
    "schedule": "constant",
    "warmup_steps": 1,
    "horizon": 2.0,
    "weight_decay": 0.5,
    "b1": 0.5,
    "b2": 0.5,
    "eps": 0.1,
    "clip_norm": 1e-3,
    "moment_dtype": "bfloat16",
    "param_dtype": "bfloat16",
}
# What every setting that decides something is changed to.
CHANGES = {
    "seed": 1,
    "methods": ("star", "multi_star", "mucode"),
    "iterations": 2,
    "generator.dtype": "bfloat16",
    "generator.param_dtype": "bfloat16",
    "generator.stored_dtype": "bfloat16",
    "verifier.path": "mini",
    "train.size": 5,
    "train.seed": 3,
    "train.split": "test",
    "rollout.n": 3,
    "rollout.turns": 1,
    "rollout.add_correct": True,
    "rollout.temperature": 1.2,
    "rollout.top_p": 0.5,
    "rollout.top_k": 3,
    "rollout.code_block": "published",
    "rollout.max_new_tokens": 30,
    "rollout.max_feedback_tokens": 30,
    "rollout.context": 180,
    "expert.kind": "lv",
    "expert.scope": "final",
    "expert.pool": "all",
    "expert.drop_unsolved": False,
    "expert.max_unsuccessful": 1,
    **{f"verifier_training.{name}": value for name, value in _TRAINING.items()},
    "verifier_training.loss": "bce",
    "verifier_training.pairs_per_problem": 1,
    "verifier_training.score_penalty": 0.1,
    "verifier_training.held_out": 0.4,
    **{f"sft.{name}": value for name, value in _TRAINING.items()},
    "sft.merge": False,
    "evaluation.size": 4,
    "evaluation.seed": 9,
    "evaluation.split": "train",
    "evaluation.protocol": "paper",
    "search.methods": ("base", "mucode"),
    "search.n": 3,
    "search.searches": 2,
    "search.choices": ("lv",),
    "search.skip_failed": False,
    "search.temperature": 1.5,
    "search.top_p": 0.5,
    "search.top_k": 3,
    "sandbox.memory_mb": 256,
    "sandbox.feedback": "none",
    "sandbox.share_folder": True,
    "sandbox.python": sys.executable,
}
# How the work is done, not what: devices, memory, processes, sweeps.
IDLE = (
    "experiment",
    "seeds",
    "cells",
    "profile_steps",
    "generator.remat",
    "rollout.slots",
    "sandbox.isolation",
    "sandbox.workers",
    "mesh.data",
    "mesh.fsdp",
    "mesh.tensor",
    "mesh.sampling_tensor",
)
# These need another model, another benchmark, or another setting beside them.
UNTRIED = (
    "generator.path",
    "generator.shape",
    "verifier.shape",
    "train.benchmark",
    "sandbox.broken_tests",
    "train.data",
    "train.compat",
    "train.testless",
    "evaluation.benchmark",
    "evaluation.data",
    "evaluation.compat",
    "evaluation.testless",
    "evaluation.also",
    "search.agree_inputs",
    "sft.lora_alpha",
    "verifier_training.lora_alpha",
)


def rerun(finished: pathlib.Path, folder: pathlib.Path, override: str) -> tuple[bool, bool, str]:
    """(ends like a fresh run, ends like before, stages kept) of a finished run that runs again."""
    again, fresh = folder / "again", folder / "fresh"
    shutil.copytree(finished, again, symlinks=True)
    before = {p: p.stat().st_mtime_ns for p in again.glob("stages/*/*/stage.json")}
    assert micro.run(again, override) == 0
    assert micro.run(fresh, override) == 0
    kept = sum(p.exists() and p.stat().st_mtime_ns == when for p, when in before.items())
    results = [micro.results(run) for run in (finished, again, fresh)]
    same = results[1] == results[2]
    for found in results:
        del found["config"]
    return same, results[2] == results[0], f"{kept} of {len(before)}"


def command_line() -> int:
    chosen = sys.argv[1:] or list(CHANGES)
    stale = []
    with tempfile.TemporaryDirectory() as name:
        finished = pathlib.Path(name) / "finished"
        for setting in (None, *chosen):
            with (
                contextlib.redirect_stderr(io.StringIO()),
                contextlib.redirect_stdout(io.StringIO()),
            ):
                if setting is None:
                    assert micro.run(finished) == 0
                    continue
                folder = pathlib.Path(name) / setting
                override = f"--config.{setting}={CHANGES[setting]}"
                same, unmoved, kept = rerun(finished, folder, override)
                shutil.rmtree(folder)
            said = "as fresh" if same else "STALE"
            said += ", as before" if unmoved else ", other results"
            print(f"{setting}={CHANGES[setting]}: {said}; kept {kept} stages", flush=True)
            stale += [] if same else [setting]
    print(f"{len(chosen)} settings changed, {len(stale)} stale: {', '.join(stale) or 'none'}")
    return bool(stale)


if __name__ == "__main__":
    sys.exit(command_line())
