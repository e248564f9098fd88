"""The experiment, from flags to report.

    python -m mucode_jax.main --config configs/quickstart.py --workdir runs/quickstart

`--config FILE[:VARIANT]`: an experiment, by its file or by the name of one that comes along
(`--config quickstart`); its variants stand at the top of its file. Every setting
is in configs/base.py, and `--config.NAME=VALUE` changes it: `--config.seed=3
--config.rollout.temperature=0.9`.

`--workdir DIR`: a folder, or a place in a bucket: `gs://BUCKET/PATH` (needs `pip install -e
'.[gcs]'`). Run again after any interruption, it resumes where it stopped. Files of finished stages
whose size, time of change and inode are as they were count as whole; with `--verify` all of them
are read and compared to their checksums, and what is damaged is made again.

On several hosts the same command is started on each, with one work directory: the bucket, or a
folder that all of them see. On Cloud TPU, GKE and under SLURM they find each other; elsewhere add
`--coordinator=HOST:PORT --processes=N --process=I` (launch/README.md).

Compiled programs are kept in DIR/xla, or where the environment's JAX_COMPILATION_CACHE_DIR says,
for all runs alike. Of a GPU's memory JAX takes 92 %, or what XLA_CLIENT_MEM_FRACTION says.

Exit status: 0 done, 1 what was asked failed, 2 bad input, 130 interrupted by
Ctrl-C, 143 by SIGTERM.
"""

from __future__ import annotations

from mucode_jax.runtime import interruption

if __name__ == "__main__":
    interruption.leave_at_once()  # the imports below take seconds

import contextlib
import itertools
import os
import pathlib
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from mucode_jax import __version__, report
from mucode_jax.algorithms import common, mucode, multi_star, pretrain, star
from mucode_jax.benchmarks import load
from mucode_jax.checks import estimate, faults, flags, plan, preflight, settings
from mucode_jax.core.conversation import Chat
from mucode_jax.core.records import Benchmark
from mucode_jax.lab import Lab, Sampling, sample, scratch, sweep
from mucode_jax.lab.results import results
from mucode_jax.models import hub, huggingface
from mucode_jax.rollouts import broken_tests, evaluate
from mucode_jax.rollouts.search import CHOICES, goes_by_score
from mucode_jax.runtime import bucket, command, hosts
from mucode_jax.runtime.progress import Progress
from mucode_jax.runtime.workdir import Workdir
from mucode_jax.sandbox import Pool

Json = Any
MEMORY_FRACTION = "0.92"


def run(config: ConfigDict, workdir: Workdir, progress: Progress) -> dict[str, Json]:
    """The whole experiment; returns what results.json holds.

    Every generator, the base first, is evaluated greedily over T turns; the base and each method's
    last generator, where `config.search.methods` names them, by multi-turn Best-of-N too.
    """
    problems, held_out = _problems(config)
    plan.check(config)
    evaluations: list[dict[str, Json]] = []
    budgets: list[dict[str, Json]] = []
    sandbox = Pool(
        workers=config.sandbox.workers or None,
        isolation=config.sandbox.isolation,
        memory_mb=config.sandbox.memory_mb,
        feedback=config.sandbox.feedback,
        python=config.sandbox.python,
        share_folder=config.sandbox.share_folder,
    )
    with sandbox as pool, faults.device_memory(config, workdir):
        problems, *held_out = broken_tests.leave_out(
            workdir,
            pool,
            [problems, *held_out],
            most=config.sandbox.broken_tests,
            say=progress.say,
        )
        _introduce(config, pool, problems, held_out, progress.say)
        lab = _lab(config, workdir, pool, progress)
        preflight.check(config, lab.base.path, lab.chat, problems, held_out)
        for doubt in preflight.doubts(config, lab.base.path, problems, held_out):
            progress.say(doubt)
        for trained in _generators(config, lab, problems):
            budgets.append(budget := common.budget(config, trained))
            progress.say(
                f"{trained.generator.name}: {budget['drawn']} completions of training problems so "
                f"far, of at most {budget['most']}"
            )
            last = trained.generator.iteration in (0, config.iterations)
            for benchmark in held_out:
                interruption.check()
                evaluated = [_greedy(config, lab, trained, benchmark)]
                if last and trained.generator.method in config.search.methods:
                    evaluated += _best_of_n(config, lab, trained, benchmark)
                where = f"{benchmark.name}, " if len(held_out) > 1 else ""
                progress.say(where + report.line(evaluated, trained.generator.name))
                evaluations += evaluated
            if workdir.made and (left := estimate.left(config, workdir.stages)):
                progress.say(left)
    return results(config.to_dict(), pool.isolation, workdir.stages, evaluations, budgets)


def _problems(config: ConfigDict) -> tuple[Benchmark, list[Benchmark]]:
    """What is learned from, and the benchmarks of the evaluation: the first, and those of `also`.

    Raises ValueError that names the section at fault.
    """
    evaluation = config.evaluation
    benchmarks = []
    for name, section in (("train", config.train), ("evaluation", evaluation)):
        with faults.of_section(name):
            benchmarks.append(
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
    how = {"compat": evaluation.compat, "testless": evaluation.testless}
    for text in evaluation.also:
        name, split, data = [*text.split(":", 2), ""][:3]
        with faults.of_section("evaluation.also"):
            benchmarks.append(load(name, split, data=data or None, **how))
    return benchmarks[0], benchmarks[1:]


def _introduce(
    config: ConfigDict,
    pool: Pool,
    problems: Benchmark,
    held_out: Sequence[Benchmark],
    say: Callable[[str], None],
) -> None:
    """Says what computes, what isolates, what is learned from and how much will be sampled."""
    say(f"backend {preflight.backend()}; sandbox isolation {pool.isolation['level']}")
    say(
        f"{len(problems.problems)} problems to learn from ({problems.name}, {problems.split}), "
        + ", ".join(f"{len(b.problems)} held out ({b.name}, {b.split})" for b in held_out)
    )
    held = sum(len(b.problems) for b in held_out)
    say(estimate.most(config, len(problems.problems), held))
    if idle := sorted(set(config.search.methods) - {"base", *config.methods}):
        say(f"config.search.methods names {', '.join(idle)}, which is not run here")


def _lab(config: ConfigDict, workdir: Workdir, pool: Pool, progress: Progress) -> Lab:
    """The tools of the experiment: the base generator, the meshes, the sandbox."""
    generator = config.generator
    if generator.path.startswith(settings.RANDOM):
        tokenizer = pathlib.Path(generator.path.removeprefix(settings.RANDOM))
        base = scratch.generator(workdir, plan.model(config), tokenizer, config.seed)
    else:
        base = hub.resolve(generator.path)
    return Lab(
        workdir,
        pool,
        progress,
        base=base,
        trunk=hub.resolve_verifier(config.verifier.path) if config.verifier.path else None,
        held={name: generator[name] for name in ("dtype", "param_dtype", "remat")},
        stored_dtype=generator.stored_dtype,
        mesh=plan.training_mesh(config),
        sampling_mesh=plan.sampling_mesh(config),
        limits=plan.limits(config),
        slots=config.rollout.slots,
        code_block=config.rollout.code_block,
        sandbox={
            **{name: config.sandbox[name] for name in ("feedback", "memory_mb")},
            # Named where they are set: runs that began before there were such settings go on.
            **{name: v for name in ("python", "share_folder") if (v := config.sandbox[name])},
        },
        profile_steps=config.profile_steps,
    )


def _generators(config: ConfigDict, lab: Lab, problems: Benchmark) -> Iterator[common.Trained]:
    """The base, then what each method's iterations yield."""
    scored = any(map(goes_by_score, config.search.choices))
    judged = scored and "base" in config.search.methods  # by a verifier that saw its rollouts
    visited = [common.roll_out(config, lab, problems, lab.base)] if judged else []
    yield common.Trained(lab.base, visited)
    for method in config.methods:
        if method == "mucode":
            yield from mucode.iterate(config, lab, problems)
        elif method in ("star", "ssd"):
            yield from star.iterate(config, lab, problems, method)
        else:
            yield from multi_star.iterate(config, lab, problems, method)


def _greedy(
    config: ConfigDict, lab: Lab, trained: common.Trained, held_out: Benchmark
) -> dict[str, Json]:
    """The evaluation by greedy conversations over T turns, one per problem."""
    protocol = config.evaluation.protocol
    rollouts = sample.rollouts(
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
    about = _about(trained, held_out)
    return evaluate.greedy_evaluation(
        rollouts.items, rollouts.labels, config.rollout.turns, protocol, **about
    )


def _best_of_n(
    config: ConfigDict, lab: Lab, trained: common.Trained, held_out: Benchmark
) -> list[dict[str, Json]]:
    """Evaluations by multi-turn Best-of-N, with a verifier of the method's own rollouts."""
    wanted = list(config.search.choices)
    # The oracle is read off the searches that go by the public tests.
    choices = [c for c in CHOICES if c in wanted or (c == "pt" and "oracle" in wanted)]
    verifier = None
    if any(map(goes_by_score, choices)):
        verifier = common.train_verifier(config, lab, trained.visited)
        if verifier is None:  # there is nothing to train one on, and a line has said so
            wanted = [choice for choice in wanted if "lv" not in choice]
            choices = [choice for choice in choices if "lv" not in choice]
    if not choices:
        return []
    searches = sample.searches(
        lab,
        f"search_{held_out.name}_{held_out.split}",
        trained.generator,
        verifier,
        held_out,
        n=config.search.n,
        searches=config.search.searches,
        choices=choices,
        sampling=common.sampling(config.search),
        key=(config.seed, "search", trained.generator.iteration),
        skip_failed=config.search.skip_failed,
        agree_inputs=config.search.agree_inputs,
    )
    evaluations = []
    for choice in wanted:
        source = "pt" if choice == "oracle" else choice
        chosen = [search.choice == source for search in searches.items]
        evaluations.append(
            evaluate.search_evaluation(
                list(itertools.compress(searches.items, chosen)),
                list(itertools.compress(searches.labels, chosen)),
                choice=choice,
                turns=config.rollout.turns,
                protocol=config.evaluation.protocol,
                skip_failed=config.search.skip_failed,
                calibrated=config.verifier_training.loss == "bce",
                **_about(trained, held_out),
            )
        )
    return evaluations


def _about(trained: common.Trained, held_out: Benchmark) -> dict[str, Json]:
    return {
        "method": trained.generator.method,
        "iteration": trained.generator.iteration,
        "benchmark": held_out.name,
        "split": held_out.split,
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


def _keep_programs(folder: pathlib.Path) -> None:
    """Has JAX keep what it compiles in `folder`; what the environment says of that comes first."""
    for name, value in {
        "jax_compilation_cache_dir": str(folder),
        # Or the folder's name would be part of what programs are known by: moved, or shared, it
        # would be worth nothing.
        "jax_persistent_cache_enable_xla_caches": "",
        # Dozens of programs compile in less than the second that is JAX's default.
        "jax_persistent_cache_min_compile_time_secs": 0.1,
    }.items():
        if name.upper() not in os.environ:
            jax.config.update(name, value)


def _in_workdir(config: ConfigDict, workdir: Workdir, progress: Progress, verify: bool) -> str:
    """What the config asks for: a run, a sweep or a pretraining; returns the table to show."""
    _keep_programs(workdir.path / "xla")
    if config.experiment == "pretrain":
        pretrain.pretrain(config, workdir)
        return ""
    if sweep.is_sweep(config):
        return sweep.run(config, workdir.where, progress, look_ahead, run, verify=verify)
    made = run(config, workdir, progress)
    if hosts.first():
        report.write(workdir.path, made)
    return report.table(made)


def _take_memory() -> None:
    """Lets JAX have most of a GPU's memory, unless it was told how much; it would take 75 %.

    To be called before JAX starts. The rest is for what CUDA's libraries allocate themselves.
    """
    if not {"XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION"} & set(os.environ):
        os.environ["XLA_CLIENT_MEM_FRACTION"] = MEMORY_FRACTION


def fail(message: str, status: int) -> int:
    """Says in one line what is wrong; returns the exit status."""
    who = f"mucode_jax, host {hosts.index()}: " if hosts.count() > 1 else "mucode_jax: "
    print(who + " ".join(message.split()), file=sys.stderr)
    return status


def main(argv: Sequence[str]) -> int:
    """Returns the exit status: 0, 1 what was asked failed, 2 bad input, 130 or 143 interrupted."""
    if set(argv[1:]) & {"-h", "--help"}:
        return command.show(__doc__)
    _take_memory()
    try:
        given = flags.parse(argv)
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
    except (Exception, SystemExit) as error:  # a config file is a program: it may raise anything
        return fail(faults.of_input(error, argv), 2)
    progress = Progress(quiet=not hosts.first())
    try:
        facts = {"version": __version__} | settings.flat(config)
        hosts.agree("settings", facts, progress.say)
        place = os.path.expanduser(given.workdir)
        opened = contextlib.closing(Workdir(place, progress.say, verify=given.verify))
        with opened as workdir, interruption.watched(progress.say):
            table = _in_workdir(config, workdir, progress, given.verify)
    except Exception as error:
        told = faults.told(error, given.workdir)
        if told is None and hosts.count() == 1:
            raise  # a fault of ours is shown whole
        if told is None:
            traceback.print_exc()
            told = (f"{type(error).__name__}: {error}", 1)
        return hosts.leave(fail(*told), told[0])
    if config.experiment == "pretrain":
        return 0
    status = command.show(table) if hosts.first() else 0
    progress.say(f"{workdir.where}/report.html")
    return hosts.leave(status)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
