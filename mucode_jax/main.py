"""The experiment, from flags to report.

    python -m mucode_jax.main --config configs/quickstart.py --workdir runs/quickstart

`--config FILE[:VARIANT]`: an experiment, by its file or by the name of one that comes along
(`--config quickstart`); its variants stand at the top of its file. Every setting
is in configs/base.py, and `--config.NAME=VALUE` changes it: `--config.seed=3
--config.rollout.temperature=0.9`.

`--workdir DIR`: a folder, or a place in a bucket: `gs://BUCKET/PATH` (needs `pip install -e
'.[gcs]'`). Run again after any interruption, it goes on where it was.

On several hosts the same command is started on each, with one work directory: the bucket, or a
folder that all of them see. On Cloud TPU, GKE and under SLURM they find each other; elsewhere add
`--coordinator=HOST:PORT --processes=N --process=I` (launch/README.md).

Exit status: 0 done, 1 what was asked failed, 2 bad input, 130 interrupted by
Ctrl-C, 143 by SIGTERM.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import itertools
import os
import pathlib
import platform
import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from typing import Any

import jax
from absl import flags
from ml_collections import ConfigDict, config_flags

from mucode_jax import __version__, report
from mucode_jax.algorithms import common, mucode, multi_star, pretrain, star
from mucode_jax.benchmarks import load
from mucode_jax.checks import estimate, faults, plan, preflight, settings
from mucode_jax.core.conversation import Chat
from mucode_jax.core.records import Benchmark
from mucode_jax.lab import Lab, Sampling, Searches, sample, scratch, sweep
from mucode_jax.models import hub, huggingface
from mucode_jax.rollouts import broken_tests, evaluate
from mucode_jax.rollouts.search import CHOICES
from mucode_jax.runtime import bucket, command, config_file, hosts, interruption
from mucode_jax.runtime.progress import Progress
from mucode_jax.runtime.workdir import Stage, Workdir
from mucode_jax.sampling.engine import Counters
from mucode_jax.sandbox import Pool

Json = Any


def run(config: ConfigDict, workdir: Workdir, progress: Progress) -> dict[str, Json]:
    """The whole experiment; returns what results.json holds.

    Every generator, the base first, is evaluated greedily over T turns; the base and each method's
    last generator, where `config.search.methods` names them, by multi-turn Best-of-N too.
    """
    problems, held_out = _problems(config)
    plan.check(config)
    evaluations: list[dict[str, Json]] = []
    sandbox = Pool(
        workers=config.sandbox.workers or None,
        isolation=config.sandbox.isolation,
        memory_mb=config.sandbox.memory_mb,
        feedback=config.sandbox.feedback,
        python=config.sandbox.python,
        share_folder=config.sandbox.share_folder,
    )
    with sandbox as pool, faults.device_memory(config, workdir):
        isolation = pool.isolation
        problems, *held_out = broken_tests.leave_out(
            workdir,
            pool,
            [problems, *held_out],
            most=config.sandbox.broken_tests,
            say=progress.say,
        )
        progress.say(f"backend {_backend()}; sandbox isolation {isolation['level']}")
        progress.say(
            f"{len(problems.problems)} problems to learn from ({problems.name}, {problems.split}), "
            + ", ".join(f"{len(b.problems)} held out ({b.name}, {b.split})" for b in held_out)
        )
        held = sum(len(b.problems) for b in held_out)
        progress.say(estimate.most(config, len(problems.problems), held))
        lab = _lab(config, workdir, pool, progress)
        preflight.check(config, lab.base.path, lab.chat, problems, held_out)
        for doubt in preflight.doubts(config, lab.base.path, problems, held_out):
            progress.say(doubt)
        if idle := sorted(set(config.search.methods) - {"base", *config.methods}):
            progress.say(f"config.search.methods names {', '.join(idle)}, which is not run here")
        for trained in _generators(config, lab, problems):
            last = trained.generator.iteration in (0, config.iterations)
            for benchmark in held_out:
                found = [_greedy(config, lab, trained, benchmark)]
                if last and trained.generator.method in config.search.methods:
                    found += _best_of_n(config, lab, trained, benchmark)
                where = f"{benchmark.name}, " if len(held_out) > 1 else ""
                progress.say(where + report.line(found, trained.generator.name))
                evaluations += found
            if workdir.made and (left := estimate.left(config, workdir.stages)):
                progress.say(left)
    stages = workdir.stages
    return {
        "schema": 1,
        "config": config.to_dict(),
        "versions": _versions(),
        "seed": config.seed,
        "isolation": isolation,
        "backend": jax.default_backend(),
        "wall_seconds": round(sum(stage.record["seconds"] for stage in stages), 1),
        "stages": [_stage(stage) for stage in stages],
        "verifiers": [
            {**report.words.whose(stage.name), **stage.record["counts"]}
            for stage in stages
            if re.search(r"/verifier(_singles)?$", stage.name)
        ],
        "evaluations": evaluations,
    }


def look_ahead(config: ConfigDict) -> None:
    """Raises ValueError for what `run` would refuse before it computes anything."""
    problems, held_out = _problems(config)
    plan.check(config)
    if not config.generator.path.startswith(settings.RANDOM):  # that is made by the run
        base = hub.resolve(config.generator.path)
        eot_ids = huggingface.eot_ids(base)
        chat = Chat(huggingface.load_tokenizer(base), eot_ids)
        preflight.check(config, base, chat, problems, held_out)


def _backend() -> str:
    """What computes. Raises ValueError where an accelerator would lie idle."""
    backend = hosts.backend()
    idle = [d for d in ("/dev/nvidia0", "/dev/accel0", "/dev/vfio/0") if pathlib.Path(d).exists()]
    if backend == "cpu" and idle and not os.environ.get("JAX_PLATFORMS"):
        raise ValueError(
            f"this machine has an accelerator ({idle[0]}) that JAX does not use; install it with "
            "pip install -e '.[cuda]' (or '.[tpu]'), or set JAX_PLATFORMS=cpu to do without"
        )
    return backend


def _problems(config: ConfigDict) -> tuple[Benchmark, list[Benchmark]]:
    """What is learned from, and the benchmarks of the evaluation: the first, and those of `also`.

    Raises ValueError that names the section at fault.
    """
    found = []
    of = config.evaluation
    for name, section in (("train", config.train), ("evaluation", of)):
        with faults.of_section(name):
            found.append(
                load(
                    section.benchmark,
                    section.split,
                    data=section.data or None,
                    seed=section.seed,
                    size=section.size or None,
                    compat=section.compat,
                    testless=section.testless,
                )
            )
    for text in of.also:
        name, split, data = [*text.split(":", 2), ""][:3]
        with faults.of_section("evaluation.also"):
            also = load(name, split, data=data or None, compat=of.compat, testless=of.testless)
            found.append(also)
    return found[0], found[1:]


def _base(config: ConfigDict, workdir: Workdir) -> pathlib.Path:
    """The base generator's directory."""
    path = config.generator.path
    if not path.startswith(settings.RANDOM):
        return hub.resolve(path)
    tokenizer = pathlib.Path(path.removeprefix(settings.RANDOM))
    return scratch.generator(workdir, plan.model(config), tokenizer, config.seed)


def _lab(config: ConfigDict, workdir: Workdir, pool: Pool, progress: Progress) -> Lab:
    c = config.generator
    return Lab(
        workdir,
        pool,
        progress,
        base=_base(config, workdir),
        trunk=hub.resolve_verifier(config.verifier.path) if config.verifier.path else None,
        dtype=c.dtype,
        param_dtype=c.param_dtype,
        remat=c.remat,
        mesh=plan.training_mesh(config),
        sampling_mesh=plan.sampling_mesh(config),
        limits=plan.limits(config),
        slots=config.rollout.slots,
        sandbox={
            **{k: config.sandbox[k] for k in ("feedback", "memory_mb")},
            # Named where they are set: runs that began before there were such settings go on.
            **{k: v for k in ("python", "share_folder") if (v := config.sandbox[k])},
        },
        profile_steps=config.profile_steps,
    )


def _generators(config: ConfigDict, lab: Lab, problems: Benchmark) -> Iterator[common.Trained]:
    """The base, then what each method's iterations yield."""
    scored = any("lv" in choice for choice in config.search.choices)
    judged = scored and "base" in config.search.methods  # by a verifier that saw its rollouts
    visited = [common.roll_out(config, lab, problems, lab.base)] if judged else []
    yield common.Trained(lab.base, visited)
    for method in config.methods:
        if method == "mucode":
            yield from mucode.iterate(config, lab, problems)
        elif method == "star":
            yield from star.iterate(config, lab, problems)
        else:
            yield from multi_star.iterate(config, lab, problems, method)


def _about(trained: common.Trained, held_out: Benchmark) -> dict[str, Json]:
    return {
        "method": trained.generator.method,
        "iteration": trained.generator.iteration,
        "benchmark": held_out.name,
        "split": held_out.split,
    }


def _greedy(
    config: ConfigDict, lab: Lab, trained: common.Trained, held_out: Benchmark
) -> dict[str, Json]:
    """Greedy conversations over T turns, one a problem."""
    protocol = config.evaluation.protocol
    found = sample.rollouts(
        lab,
        f"greedy_{held_out.name}_{held_out.split}",
        trained.generator,
        held_out,
        n=1,
        turns=config.rollout.turns,
        sampling=Sampling(0.0),
        key=("greedy",),
        stop_on_pass=protocol == "deployable",
    )
    return evaluate.greedy_evaluation(
        found.items, found.labels, config.rollout.turns, protocol, **_about(trained, held_out)
    )


def _best_of_n(
    config: ConfigDict, lab: Lab, trained: common.Trained, held_out: Benchmark
) -> list[dict[str, Json]]:
    """Multi-turn Best-of-N, with a verifier trained on the method's own rollouts."""
    settings = config.search
    wanted = list(settings.choices)
    # The upper bound is read off the searches that go by the public tests.
    choices = [c for c in CHOICES if c in wanted or (c == "pt" and "oracle" in wanted)]
    verifier = None
    if any("lv" in choice for choice in choices):
        verifier = common.train_verifier(config, lab, trained.visited)
        if verifier is None:  # said already: nothing to train one on
            wanted = [choice for choice in wanted if "lv" not in choice]
            choices = [choice for choice in choices if "lv" not in choice]
    if not choices:
        return []
    found: Searches = sample.searches(
        lab,
        f"search_{held_out.name}_{held_out.split}",
        trained.generator,
        verifier,
        held_out,
        n=settings.n,
        searches=settings.searches,
        choices=choices,
        sampling=common.sampling(settings),
        key=(config.seed, "search", trained.generator.iteration),
        skip_failed=settings.skip_failed,
    )
    evaluations = []
    for choice in wanted:
        source = "pt" if choice == "oracle" else choice
        chosen = [s.choice == source for s in found.items]
        evaluations.append(
            evaluate.search_evaluation(
                list(itertools.compress(found.items, chosen)),
                list(itertools.compress(found.labels, chosen)),
                choice=choice,
                turns=config.rollout.turns,
                protocol=config.evaluation.protocol,
                **_about(trained, held_out),
            )
        )
    return evaluations


def _stage(stage: Stage) -> dict[str, Json]:
    counts = {"tokens": 0, "executions": 0, **stage.record["counts"]}
    return {
        "name": stage.name,
        "iteration": report.words.whose(stage.name)["iteration"],
        "seconds": stage.record["seconds"],
        **counts,
        **_sampling(stage.record.get("metered")),
    }


def _sampling(metered: Json) -> dict[str, Json]:
    """What the sampler did in a stage, from the sums of `sampling.engine.Counters`."""
    if not metered:
        return {}
    counters = Counters(**metered)
    return {
        "sampling": {
            "prefilled": counters.prefilled,
            "decoded": counters.decoded,
            "wasted": counters.wasted,
            "occupancy": round(counters.occupancy, 4),
            "seconds": round(counters.seconds, 3),
            "idle_seconds": round(counters.idle_seconds, 3),
            "tokens_per_second": round(counters.decoded / max(counters.seconds, 1e-9), 1),
        }
    }


def _versions() -> dict[str, str]:
    packages = ("jax", "jaxlib", "flax", "transformers", "numpy")
    return {
        "mucode_jax": __version__,
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in packages},
    }


def _flags(argv: Sequence[str]) -> flags.FlagValues:
    """The flags' values. Raises what absl and ml_collections raise, and ValueError."""
    argv = config_file.locate(argv)
    found = flags.FlagValues()
    config_flags.DEFINE_config_file("config", flag_values=found, sys_argv=list(argv))
    for name in ("workdir", "coordinator"):
        flags.DEFINE_string(name, None, "", flag_values=found)
    for name in ("processes", "process"):
        flags.DEFINE_integer(name, None, "", flag_values=found)
    left = found(argv)
    if len(left) > 1:
        raise ValueError(f"unexpected argument {left[1]!r}; settings are --config.NAME=VALUE")
    if not found["config"].present or not found.workdir:
        raise ValueError("give --config configs/NAME.py and --workdir DIR")
    try:
        found.workdir.encode()
    except UnicodeEncodeError as error:
        raise ValueError("--workdir: its name is no UTF-8; give another") from error
    found.config.to_dict()  # raises where it is no ConfigDict, or has not been loaded
    return found


def fail(message: str, status: int) -> int:
    """Says in one line what is wrong; returns the exit status."""
    who = f"mucode_jax, host {hosts.index()}: " if hosts.count() > 1 else "mucode_jax: "
    print(who + " ".join(message.split()), file=sys.stderr)
    return status


def main(argv: Sequence[str]) -> int:
    """Returns the exit status: 0, 1 what was asked failed, 2 bad input, 130 or 143 interrupted."""
    try:
        if set(argv[1:]) & {"-h", "--help"}:
            return command.show(__doc__)
        given = _flags(argv)
        config = given.config
        if sweep.is_sweep(config):
            sweep.expand(config)
        else:
            settings.validate(config)
        hosts.connect(given.coordinator, given.processes, given.process)
        hosts.backend()
        if hosts.count() > 1 and (config.experiment == "pretrain" or sweep.is_sweep(config)):
            raise ValueError("a sweep or a pretraining runs on one host; start it as one process")
        if config.experiment == "pretrain" and bucket.named(given.workdir):
            raise ValueError(f"--workdir {given.workdir}: a pretraining needs a folder")
    except KeyboardInterrupt:
        return fail("interrupted", 130)
    except (Exception, SystemExit) as error:  # a config file is a program: it may raise anything
        return fail(faults.of_input(error, argv), 2)
    progress = Progress(quiet=not hosts.first())
    try:
        hosts.agree("settings", {"version": __version__} | settings.flat(config))
        opened = contextlib.closing(Workdir(os.path.expanduser(given.workdir), progress.say))
        with opened as workdir, interruption.watched(progress.say):
            jax.config.update("jax_compilation_cache_dir", str(workdir.path / "xla"))
            # Or the folder's name would be part of what programs are known by: moved, or linked to
            # another's, it would be worth nothing.
            jax.config.update("jax_persistent_cache_enable_xla_caches", "")
            if config.experiment == "pretrain":
                pretrain.pretrain(config, workdir)
                return 0
            if sweep.is_sweep(config):
                shown = sweep.run(config, workdir.where, progress, look_ahead, run)
            else:
                results = run(config, workdir, progress)
                if hosts.first():
                    report.write(workdir.path, results)
                shown = report.table(results)
    except (Exception, KeyboardInterrupt) as error:
        told = faults.told(error, given.workdir)
        if told is None and hosts.count() == 1:
            raise  # a fault of ours is shown whole
        if told is None:
            traceback.print_exc()
            told = (f"{type(error).__name__}: {error}", 1)
        return hosts.leave(fail(*told), told[0])
    status = command.show(shown) if hosts.first() else 0
    progress.say(f"{workdir.where}/report.html")
    return hosts.leave(status)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
