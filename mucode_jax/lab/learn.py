"""Stages that train: the verifier, and the generator fine-tuned on its targets."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from mucode_jax.core import keys
from mucode_jax.core.records import SFTExample, VerifierExample
from mucode_jax.lab.artifacts import LabelledRollouts, Model, Scores
from mucode_jax.lab.lab import Lab
from mucode_jax.models import huggingface, llama
from mucode_jax.models import verifier as verifiers
from mucode_jax.models.llama import LlamaConfig, Params
from mucode_jax.rollouts import measures
from mucode_jax.rollouts.scorer import Scorer
from mucode_jax.runtime import summaries
from mucode_jax.runtime.ledger import CHECKPOINTS
from mucode_jax.training import batches, fit, losses
from mucode_jax.training.fit import Recipe

Json = Any
Pair = tuple[VerifierExample, VerifierExample]  # of one problem: correct, incorrect


def train_verifier(
    lab: Lab,
    visited: Sequence[LabelledRollouts],
    examples: Sequence[VerifierExample],
    recipe: Recipe,
    *,
    loss: str,
    pairs_per_problem: int,
    score_penalty: float,
    held_out: float,
) -> Model | None:
    """A verifier trained from `lab.trunk`, measured on held-out problems.

    A trunk that is a verifier itself brings its head; a generator gets a fresh one.

    Args:
      visited: the rollouts that `examples` are made of; the last names the verifier.
      examples: labelled completions.
      loss: of `losses.VERIFIER`: `bt` (pairs of one problem) or `bce` (single examples, those that
        the pairs are made of).
      pairs_per_problem: at most so many pairs are drawn.
      score_penalty: see `training.losses`.
      held_out: share of the problems that are not trained on.

    Returns:
      the verifier; its stage counts what `verifiers` in results.json shows. None where no
      problem has both correct and incorrect completions: there is nothing to tell apart.
    """
    last = visited[-1]
    name = f"{last.generator.name}/verifier" + ("" if last.name == "rollouts" else f"_{last.name}")
    settings = {
        **recipe.settings(),
        **lab.storing(),
        "loss": loss,
        "pairs_per_problem": pairs_per_problem,
        "score_penalty": score_penalty,
        "held_out": held_out,
    }
    key = (recipe.seed, "verifier")
    train, test = batches.split_by_problem(examples, fraction=held_out, key=key)
    pairs = batches.make_pairs(train, pairs_per_problem=pairs_per_problem, key=key)
    if not pairs:
        lab.progress.say(
            f"{name}: skipped, because no problem has both a correct and an incorrect completion"
        )
        return None
    quality: dict[str, Json] = {}  # of the latest epoch
    kind = losses.VERIFIER[loss]

    @functools.cache
    def packed() -> batches.Packed:
        packing = recipe.packing("verifier_training", lab.mesh, singles=not kind.pairs)
        if kind.pairs:
            return batches.pack_pairs(pairs, packing, key)
        members = {id(example): example for pair in pairs for example in pair}
        return batches.pack_singles(list(members.values()), packing, key)

    def share(path: pathlib.Path) -> None:
        config = lab.config(lab.trunk)
        mesh = lab.mesh if lab.mesh.size > 1 else None

        def measure(epoch: int, params: Params) -> None:
            if mesh is None:  # as they are when they are read back, so that nothing compiles twice
                params = jax.tree.map(lambda x: x.addressable_data(0), params)
            quality.update(verifier_quality(Scorer(config, params, mesh=mesh), test))
            lab.progress.say(f"{name}: epoch {epoch + 1}, on held-out problems {_shown(quality)}")

        params = _fit(
            lab,
            path,
            name,
            kind.make(config, l2=score_penalty),
            functools.partial(_fresh_verifier, lab, config, key),
            packed(),
            recipe,
            axes=verifiers.logical_axes(config),
            on_epoch=measure,
        )
        params = lab.stored(params)
        huggingface.save_verifier(params, config, path / "model", tokenizer_from=lab.trunk.path)

    def make(path: pathlib.Path) -> Mapping[str, Json]:
        counts = {"pairs": len(pairs), "examples": len(examples), "dropped": packed().dropped}
        if loss != "bce":  # differences of scores alone predict no probability
            quality["brier"] = None
        return {"loss": loss, **quality, **counts}

    inputs = {f"{r.generator.name}/{r.name}": r.stage for r in visited} | {"trunk": lab.trunk.stage}
    stage = lab.workdir.stage(name, settings, inputs, make, share)
    return Model(last.generator.method, last.generator.iteration, stage.path / "model", stage)


def _fresh_verifier(lab: Lab, config: LlamaConfig, key: tuple[Any, ...]) -> Params:
    """Where a verifier's training starts: the trunk, with a fresh head unless it has one."""
    if huggingface.is_verifier(lab.trunk.path):
        return huggingface.load_verifier(lab.trunk.path, config, mesh=lab.mesh)
    generator = huggingface.load_generator(lab.trunk.path, config, mesh=lab.mesh)
    head_key = jax.random.wrap_key_data(keys.key_data(*key, "head"))
    return verifiers.from_generator(config, generator, head_key)


def verifier_quality(scorer: Scorer, examples: Sequence[VerifierExample]) -> dict[str, Json]:
    """How well a verifier tells the completions of held-out problems apart: `measures.quality`."""
    scores = scorer([e.ids for e in examples])
    correct = np.array([e.correct for e in examples], bool)
    return measures.quality(scores, correct, [e.task_id for e in examples])


def _shown(quality: Mapping[str, Json]) -> str:
    """ "AUC within 0.770, best one right 68 % of 31 mixed problems (by chance 39 %)"."""
    if not quality["mixed"]:
        return "no problem has both correct and incorrect completions"
    return (
        f"AUC within {quality['auc_within']:.3f}, best one right {quality['best_right']:.0%} of "
        f"{quality['mixed']} mixed problems (by chance {quality['best_right_chance']:.0%})"
    )


def fine_tune(
    lab: Lab,
    method: str,
    iteration: int,
    examples: Sequence[SFTExample],
    inputs: Sequence[LabelledRollouts | Scores],
    recipe: Recipe,
    selection: Mapping[str, Json],
) -> Model:
    """The base generator fine-tuned on `examples` (paper, equation 5).

    Args:
      method, iteration: what the result is called.
      examples: what is learned.
      inputs: what they were made of, by the settings `selection`.

    Without examples (nothing was solved) the result is the base, and a line says so.
    """
    generator = f"{method}_{iteration}"
    name = f"{generator}/generator"
    settings = {**recipe.settings(), **lab.storing(), "selection": dict(selection)}

    @functools.cache
    def packed() -> batches.Packed:
        key = (recipe.seed, method, iteration)
        return batches.pack_sft(examples, recipe.packing("sft", lab.mesh), key)

    def share(path: pathlib.Path) -> None:
        config = lab.config(lab.base)
        base = functools.partial(huggingface.load_generator, lab.base.path, config, mesh=lab.mesh)
        if examples:
            loss, axes = losses.sft(config), llama.logical_axes(config)
            params = _fit(lab, path, name, loss, base, packed(), recipe, axes=axes)
        else:
            lab.progress.say(
                f"{name}: nothing was solved, so there is nothing to learn from; it is the base"
            )
            lab.forget()
            params = base()
        params = lab.stored(params)
        huggingface.save_generator(params, config, path / "model", tokenizer_from=lab.base.path)
        lab.carry(generator, params)

    def make(path: pathlib.Path) -> Mapping[str, Json]:
        if not examples:
            return {"examples": 0, "steps": 0}
        return {
            "examples": len(examples),
            "dropped": packed().dropped,
            "steps": packed().steps,
            "trained_tokens": recipe.epochs * packed().tokens,
            "supervised_tokens": int(sum(np.count_nonzero(e.weights) for e in examples)),
        }

    stages = {f"{i}/{type(x).__name__}": x.stage for i, x in enumerate(inputs)}
    stage = lab.workdir.stage(name, settings, stages | {"base": lab.base.stage}, make, share)
    return Model(method, iteration, stage.path / "model", stage)


def _fit(
    lab: Lab,
    path: pathlib.Path,
    name: str,
    loss: losses.Loss,
    params: Callable[[], Params],
    packed: batches.Packed,
    recipe: Recipe,
    *,
    axes: Any,
    on_epoch: Callable[[int, Params], None] | None = None,
) -> Params:
    """`training.fit` with progress, its checkpoints in the stage's folder until it is finished."""
    lab.forget()
    if packed.dropped:
        lab.progress.say(
            f"{name}: {packed.dropped} examples are longer than the section's length, left out"
        )
    with (
        lab.progress.task(name.replace("/", ": "), packed.steps, "steps") as advance,
        summaries.watched(
            lab.workdir.path / "tensorboard", name, profile_steps=lab.profile_steps
        ) as note,
    ):

        def on_step(step: int, steps: int, values: dict[str, float]) -> None:
            note(step, values)
            advance(1, f"loss {values['loss']:.4f}")

        return fit.fit(
            loss,
            params,
            packed.epochs,
            recipe,
            axes=axes,
            mesh=lab.mesh,
            checkpoints=lab.workdir.address(path / CHECKPOINTS),
            on_step=on_step,
            on_epoch=on_epoch,
        )
