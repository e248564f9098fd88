"""Looks ahead: what would go wrong hours later is said before anything is computed.

`settings` checks what the config alone tells; here it is held against the base generator, its
tokenizer, the problems and the mesh.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mucode_jax.lab import Lab
from mucode_jax.lab.learn import Recipe
from mucode_jax.models import huggingface
from mucode_jax.records import Benchmark
from mucode_jax.rollout import first_prompt


def check(
    lab: Lab,
    problems: Benchmark,
    held_out: Sequence[Benchmark],
    recipes: Mapping[str, Recipe],
) -> None:
    """Raises ValueError for the first thing that does not fit.

    Args:
      lab: with the base generator and its chat template.
      problems, held_out: what is learned from, what is evaluated.
      recipes: of each training section of the config.
    """
    model = lab.config(lab.base)
    if lab.chat.vocab_size > model.vocab_size:
        raise ValueError(
            f"the tokenizer of {lab.base.path} has ids up to {lab.chat.vocab_size - 1}, but the "
            f"model has embeddings for {model.vocab_size}; they do not belong together"
        )
    if lab.limits.context > model.max_positions:
        raise ValueError(
            f"config.rollout.context is {lab.limits.context}, but the model in {lab.base.path} has "
            f"{model.max_positions} positions"
        )
    if lab.trunk is not lab.base:
        _check_trunk(lab)
    sizes = [len(first_prompt(lab.chat, p, lab.limits)) for p in problems.problems]
    for section, recipe in recipes.items():
        # Beside the prompt there is at least one token and the end of its turn.
        if min(sizes) + 2 > recipe.length:
            raise ValueError(
                f"config.{section}.length is {recipe.length}, but the shortest prompt of "
                f"{problems.name} takes {min(sizes)} tokens: there would be nothing to train on"
            )
    templates = {p.feedback for p in problems.problems}
    for benchmark in held_out:
        for problem in benchmark.problems:
            first_prompt(lab.chat, problem, lab.limits)
            templates.add(problem.feedback)
    if lab.limits.turns > 1:
        for template in templates:
            empty = dict.fromkeys(("feedback", "summary"), "")
            lab.chat.next_within(template, empty, lab.limits.max_feedback_tokens)


def doubts(problems: Benchmark, held_out: Sequence[Benchmark]) -> list[str]:
    """What a person may not have meant, though it can be run: a line each."""
    learned = {problem.prompt for problem in problems.problems}
    found = []
    for benchmark in held_out:
        if seen := sum(problem.prompt in learned for problem in benchmark.problems):
            found.append(
                f"warning: {seen} of the {len(benchmark.problems)} problems of {benchmark.name}, "
                f"{benchmark.split} are learned from too; what is measured on them does not "
                "generalise"
            )
    return found


def _check_trunk(lab: Lab) -> None:
    """What verifiers are trained from reads the generator's tokens, one turn of them at least."""
    where, model = lab.trunk.path, lab.config(lab.trunk)
    own, base = (huggingface.load_tokenizer(m.path).get_vocab() for m in (lab.trunk, lab.base))
    if own != base or lab.chat.vocab_size > model.vocab_size:
        raise ValueError(
            f"config.verifier.path: {where} reads other tokens than the generator in "
            f"{lab.base.path}; choose one with its tokenizer, or leave it empty"
        )
    longest = lab.limits.max_prompt_tokens + lab.limits.max_new_tokens
    if longest > model.max_positions:
        raise ValueError(
            f"config.verifier.path: {where} has {model.max_positions} positions, but a prompt and "
            f"its completion may take {longest} tokens (config.rollout)"
        )
