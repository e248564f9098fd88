"""Looks ahead: what would go wrong hours later is said before anything is computed.

`settings` checks the config alone; here it is compared with the base generator, its tokenizer and
the problems. `plan` checks the devices' memory.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence

from ml_collections import ConfigDict

from mucode_jax.checks import plan
from mucode_jax.core.conversation import Chat
from mucode_jax.core.records import Benchmark
from mucode_jax.models import hub, huggingface
from mucode_jax.rollouts import inputs
from mucode_jax.rollouts.collect import first_prompt
from mucode_jax.runtime import hosts


def backend() -> str:
    """The platform that JAX computes on; ValueError where it lets an accelerator lie idle."""
    platform = hosts.backend()
    devices = ("/dev/nvidia0", "/dev/accel0", "/dev/vfio/0")
    idle = [device for device in devices if os.path.exists(device)]
    if platform == "cpu" and idle and not os.environ.get("JAX_PLATFORMS"):
        raise ValueError(
            f"this machine has an accelerator ({idle[0]}) that JAX does not use; install it with "
            "pip install -e '.[cuda]' (or '.[tpu]'), or set JAX_PLATFORMS=cpu to do without"
        )
    return platform


def check(
    config: ConfigDict,
    base: pathlib.Path,
    chat: Chat,
    problems: Benchmark,
    held_out: Sequence[Benchmark],
) -> None:
    """Raises ValueError for the first thing that does not fit.

    Args:
      config: of the experiment.
      base: the base generator's directory.
      chat: its chat template.
      problems, held_out: to train on, to evaluate on.
    """
    limits = plan.limits(config)
    model = huggingface.read_config(base)
    huggingface.check_weights(base, model)
    if chat.vocab_size > model.vocab_size:
        raise ValueError(
            f"the tokenizer of {base} has ids up to {chat.vocab_size - 1}, but the model has "
            f"embeddings for {model.vocab_size}; they do not belong together"
        )
    if limits.context > model.max_positions:
        raise ValueError(
            f"config.rollout.context is {limits.context}, but the model in {base} has "
            f"{model.max_positions} positions"
        )
    if config.verifier.path:
        _check_trunk(config, base, chat)
    sizes = [len(first_prompt(chat, p, limits)) for p in problems.problems]
    for section in ("verifier_training", "sft"):
        # Beside the prompt there is at least one token and the end of its turn.
        if min(sizes) + 2 > config[section].length:
            raise ValueError(
                f"config.{section}.length is {config[section].length}, but the shortest prompt of "
                f"{problems.name} takes {min(sizes)} tokens: there would be nothing to train on"
            )
    templates = {p.feedback for p in problems.problems}
    for benchmark in held_out:
        for problem in benchmark.problems:
            first_prompt(chat, problem, limits)
            templates.add(problem.feedback)
    if limits.turns > 1:
        for template in templates:
            empty = dict.fromkeys(("feedback", "summary"), "")
            chat.next_within(template, empty, limits.max_feedback_tokens)


def doubts(
    config: ConfigDict, base: pathlib.Path, problems: Benchmark, held_out: Sequence[Benchmark]
) -> list[str]:
    """Warnings on what can be run but may not be meant, a line each; arguments as of `check`."""
    warnings = []
    directories = {"generator": base}
    if config.verifier.path:
        directories["verifier"] = hub.resolve_verifier(config.verifier.path)
    for section, directory in directories.items():
        model = huggingface.read_config(directory)
        wrong = [
            f"{name} {value}, there {getattr(model, name)}"
            for name, value in config[section].shape.to_dict().items()
            if value != getattr(model, name)
        ]
        if wrong:
            warnings.append(
                f"warning: config.{section}.shape is not that of the model in {directory} "
                f"({'; '.join(wrong)})"
            )
    if "agree" in config.search.choices:
        for benchmark in held_out:
            bare = sum(not inputs.further(problem, 1) for problem in benchmark.problems)
            if bare:
                warnings.append(
                    f"warning: the choice agree has no further inputs for {bare} of the "
                    f"{len(benchmark.problems)} problems of {benchmark.name}, {benchmark.split}: "
                    "their public tests neither call a function with plain values nor give "
                    "standard input; there all programs that pass are one group"
                )
    trained_on = {problem.prompt for problem in problems.problems}
    for benchmark in held_out:
        if seen := sum(problem.prompt in trained_on for problem in benchmark.problems):
            warnings.append(
                f"warning: {seen} of the {len(benchmark.problems)} problems of {benchmark.name}, "
                f"{benchmark.split} are learned from too; what is measured on them does not "
                "generalise"
            )
    return warnings


def _check_trunk(config: ConfigDict, base: pathlib.Path, chat: Chat) -> None:
    """Verifiers must start from a model that reads the generator's tokens, a whole turn of them."""
    directory = hub.resolve_verifier(config.verifier.path)
    model = huggingface.read_config(directory)
    huggingface.check_weights(directory, model)
    trunk, generator = (huggingface.load_tokenizer(d).get_vocab() for d in (directory, base))
    if trunk != generator or chat.vocab_size > model.vocab_size:
        raise ValueError(
            f"config.verifier.path: {directory} reads other tokens than the generator in "
            f"{base}; choose one with its tokenizer, or leave it empty"
        )
    limits = plan.limits(config)
    longest = limits.max_prompt_tokens + limits.max_new_tokens
    if longest > model.max_positions:
        raise ValueError(
            f"config.verifier.path: {directory} has {model.max_positions} positions, but a prompt "
            f"and its completion may take {longest} tokens (config.rollout)"
        )
