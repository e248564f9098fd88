"""Looks ahead: what would go wrong hours later is said before anything is computed.

`settings` checks what the config alone tells; here it is held against the base generator, its
tokenizer and the problems. What devices hold is `plan`'s.
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
      problems, held_out: what is learned from, what is evaluated.
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
    """What a person may not have meant, though it can be run: a line each; see `check`."""
    found = []
    directories = {"generator": base}
    if config.verifier.path:
        directories["verifier"] = hub.resolve_verifier(config.verifier.path)
    for section, directory in directories.items():
        model = huggingface.read_config(directory)
        shape = config[section].shape.to_dict()
        wrong = [
            f"{name} {told}, there {getattr(model, name)}"
            for name, told in shape.items()
            if told != getattr(model, name)
        ]
        if wrong:
            found.append(
                f"warning: config.{section}.shape is not that of the model in {directory} "
                f"({'; '.join(wrong)})"
            )
    learned = {problem.prompt for problem in problems.problems}
    for benchmark in held_out:
        if seen := sum(problem.prompt in learned for problem in benchmark.problems):
            found.append(
                f"warning: {seen} of the {len(benchmark.problems)} problems of {benchmark.name}, "
                f"{benchmark.split} are learned from too; what is measured on them does not "
                "generalise"
            )
    return found


def _check_trunk(config: ConfigDict, base: pathlib.Path, chat: Chat) -> None:
    """What verifiers are trained from reads the generator's tokens, one turn of them at least."""
    where = hub.resolve_verifier(config.verifier.path)
    model = huggingface.read_config(where)
    huggingface.check_weights(where, model)
    own, read = (huggingface.load_tokenizer(path).get_vocab() for path in (where, base))
    if own != read or chat.vocab_size > model.vocab_size:
        raise ValueError(
            f"config.verifier.path: {where} reads other tokens than the generator in "
            f"{base}; choose one with its tokenizer, or leave it empty"
        )
    limits = plan.limits(config)
    longest = limits.max_prompt_tokens + limits.max_new_tokens
    if longest > model.max_positions:
        raise ValueError(
            f"config.verifier.path: {where} has {model.max_positions} positions, but a prompt and "
            f"its completion may take {longest} tokens (config.rollout)"
        )
