"""Stages that train: the verifier, and the generator fine-tuned on its targets."""

from __future__ import annotations

import dataclasses
import math
import pathlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from mucode_jax import interruption, keys, summaries
from mucode_jax.lab import Json, Lab, LabelledRollouts, Model, Scores
from mucode_jax.models import huggingface, llama
from mucode_jax.models import verifier as verifiers
from mucode_jax.models.llama import Params
from mucode_jax.records import SFTExample, VerifierExample
from mucode_jax.score import Scorer
from mucode_jax.training import batches, fit, losses, metrics
from mucode_jax.training.lora import LoRA
from mucode_jax.training.step import OptimizerConfig

CHECKPOINTS = "checkpoints"  # in a stage's folder, until it is done


def train_verifier(
    lab: Lab,
    visited: Sequence[LabelledRollouts],
    examples: Sequence[VerifierExample],
    *,
    loss: str,
    epochs: int,
    pairs_per_problem: int,
    batch: int,
    rows: int,
    length: int,
    score_penalty: float,
    held_out: float,
    optimizer: OptimizerConfig,
    microbatches: int = 1,
    lora: LoRA | None = None,
    seed: int,
) -> Model | None:
    """A verifier trained from the base's trunk and a fresh head, measured on held-out problems.

    Args:
      visited: the rollouts that `examples` are made of; the last names the verifier.
      examples: labelled completions.
      loss: of `losses.VERIFIER`: `bt` (pairs of one problem) or `bce` (single examples, those that
        the pairs are made of).
      epochs, length, score_penalty, optimizer: see `training`.
      pairs_per_problem: at most so many pairs are drawn.
      batch: pairs, or twice as many single examples, a step; `rows`: see `_shape`.
      held_out: share of the problems that are not trained on.
      microbatches, lora: see `training.fit`; with adapters the result is the merged model.
      seed: of the head, the split, the pairs, the order and fresh adapters.

    Returns:
      the verifier; its stage counts what `verifiers` in results.json shows. None where no
      problem has both correct and incorrect completions: there is nothing to tell apart.
    """
    last = visited[-1]
    name = f"{last.generator.name}/verifier" + ("" if last.name == "rollouts" else f"_{last.name}")
    settings = {
        "loss": loss,
        "epochs": epochs,
        "pairs_per_problem": pairs_per_problem,
        "batch": batch,
        "rows": rows,
        "length": length,
        "score_penalty": score_penalty,
        "held_out": held_out,
        "optimizer": dataclasses.asdict(optimizer),
        "microbatches": microbatches if microbatches > 1 else None,
        "lora": dataclasses.asdict(lora) if lora else None,
        "seed": seed,
    }

    key = (seed, "verifier")
    train, test = batches.split_by_problem(examples, fraction=held_out, key=key)
    pairs = batches.make_pairs(train, pairs_per_problem=pairs_per_problem, key=key)
    if not pairs:
        lab.progress.say(
            f"{name}: skipped, because no problem has both a correct and an incorrect completion"
        )
        return None

    quality: dict[str, Json] = {}

    def share(path: pathlib.Path) -> None:
        config = lab.config(lab.base)
        of = losses.VERIFIER[loss]
        if of.pairs:
            items, size, pack = pairs, batches.pair_size, batches.pack_pairs
        else:
            members = {id(e): e for pair in pairs for e in pair}
            items, size, pack = (
                list(members.values()),
                batches.single_size,
                batches.pack_singles,
            )
        per_batch = batch if of.pairs else 2 * batch
        sizes = [size(item) for item in items]
        shape = _shape(lab, name, sizes, per_batch, rows, length, microbatches)
        mesh = lab.mesh if lab.mesh.size > 1 else None

        def measure(epoch: int, params: Params) -> None:
            quality.update(verifier_quality(Scorer(config, params, mesh=mesh), test))
            lab.progress.say(f"{name}: epoch {epoch + 1}, on held-out problems {quality}")

        def fresh() -> Params:
            generator = huggingface.load_generator(lab.base.path, config, mesh=lab.mesh)
            head_key = jax.random.wrap_key_data(keys.key_data(*key, "head"))
            return verifiers.from_generator(config, generator, head_key)

        params = _fit(
            lab,
            path,
            name,
            of.make(config, l2=score_penalty),
            fresh,
            lambda epoch: pack(items, length=shape[0], rows=shape[1], key=(*key, "epoch", epoch)),
            axes=verifiers.logical_axes(config),
            epochs=epochs,
            optimizer=optimizer,
            microbatches=microbatches,
            lora=lora,
            seed=seed,
            on_epoch=measure,
        )
        if not quality:  # taken up after the last epoch's end
            measure(epochs - 1, params)
        huggingface.save_verifier(params, config, path / "model", tokenizer_from=lab.base.path)

    def make(path: pathlib.Path) -> Mapping[str, Json]:
        shutil.rmtree(path / CHECKPOINTS, ignore_errors=True)
        return {"loss": loss, **quality, "pairs": len(pairs), "examples": len(examples)}

    inputs = {r.generator.name: r.stage for r in visited} | {"base": lab.base.stage}
    stage = lab.workdir.stage(name, settings, inputs, make, share)
    return Model(last.generator.method, last.generator.iteration, stage.path / "model", stage)


def fine_tune(
    lab: Lab,
    method: str,
    iteration: int,
    examples: Sequence[SFTExample],
    inputs: Sequence[LabelledRollouts | Scores],
    *,
    selection: Mapping[str, Json],
    epochs: int,
    batch: int,
    rows: int,
    length: int,
    optimizer: OptimizerConfig,
    microbatches: int = 1,
    lora: LoRA | None = None,
    seed: int,
) -> Model:
    """The base generator fine-tuned on `examples` (paper, equation 5).

    Args:
      method, iteration: what the result is called.
      examples: what is learned.
      inputs: what they were made of, by the settings `selection`.
      epochs, batch (examples a step), length, optimizer, microbatches, lora (merged in the end):
        see `training`; rows: see `_shape`.
      seed: of the order and of fresh adapters.

    Without examples (nothing was solved) the result is the base, and that is said.
    """
    name = f"{method}_{iteration}/generator"
    settings = {
        "selection": dict(selection),
        "epochs": epochs,
        "batch": batch,
        "rows": rows,
        "length": length,
        "optimizer": dataclasses.asdict(optimizer),
        "microbatches": microbatches if microbatches > 1 else None,
        "lora": dataclasses.asdict(lora) if lora else None,
        "seed": seed,
    }

    def epoch_batches(epoch: int) -> batches.Batches:
        sizes = [batches.sft_size(e) for e in examples]
        length_, rows_ = _shape(lab, name, sizes, batch, rows, length, microbatches)
        key = (seed, method, iteration, "epoch", epoch)
        return batches.pack_sft(examples, length=length_, rows=rows_, key=key)

    def share(path: pathlib.Path) -> None:
        if not examples:
            return
        config = lab.config(lab.base)
        params = _fit(
            lab,
            path,
            name,
            losses.sft(config),
            lambda: huggingface.load_generator(lab.base.path, config, mesh=lab.mesh),
            epoch_batches,
            axes=llama.logical_axes(config),
            epochs=epochs,
            optimizer=optimizer,
            microbatches=microbatches,
            lora=lora,
            seed=seed,
        )
        huggingface.save_generator(params, config, path / "model", tokenizer_from=lab.base.path)
        lab.carry(f"{method}_{iteration}", params)

    def make(path: pathlib.Path) -> Mapping[str, Json]:
        shutil.rmtree(path / CHECKPOINTS, ignore_errors=True)
        if not examples:
            lab.progress.say(
                f"{name}: nothing was solved, so there is nothing to learn from; it is the base"
            )
            config = lab.config(lab.base)
            base = huggingface.load_generator(lab.base.path, config)
            huggingface.save_generator(base, config, path / "model", tokenizer_from=lab.base.path)
            return {"examples": 0, "steps": 0}
        first = epoch_batches(0)
        return {
            "examples": len(examples),
            "dropped": first.dropped,
            "steps": epochs * len(first),
            "trained_tokens": epochs * first.real_tokens,
            "supervised_tokens": int(sum(np.count_nonzero(e.weights) for e in examples)),
        }

    of = {f"{i}/{type(x).__name__}": x.stage for i, x in enumerate(inputs)}
    stage = lab.workdir.stage(name, settings, of | {"base": lab.base.stage}, make, share)
    return Model(method, iteration, stage.path / "model", stage)


def _shape(
    lab: Lab,
    name: str,
    sizes: Sequence[int],
    per_batch: int,
    rows: int,
    length: int,
    microbatches: int,
) -> tuple[int, int]:
    """(length, rows) of every batch: as told, or where `rows` is 0 what holds `per_batch`.

    Raises ValueError where every example is too long.
    """
    if min(sizes) > length:
        raise ValueError(
            f"{name}: the shortest of {len(sizes)} examples takes {min(sizes)} tokens, more than "
            f"the section's length of {length}; raise it"
        )
    if rows:
        return length, rows
    multiple = lab.mesh.shape["data"] * lab.mesh.shape["fsdp"] * microbatches
    return batches.batch_shape(sizes, per_batch=per_batch, longest=length, rows_multiple=multiple)


def _fit(
    lab: Lab,
    path: pathlib.Path,
    name: str,
    loss: losses.Loss,
    params: Callable[[], Params],
    epoch_batches: Callable[[int], batches.Batches],
    *,
    axes: Any,
    epochs: int,
    optimizer: OptimizerConfig,
    microbatches: int,
    lora: LoRA | None,
    seed: int,
    on_epoch: Callable[[int, Params], None] | None = None,
) -> Params:
    """`training.fit` with progress, its checkpoints in the stage's folder until it is done."""
    lab.forget()
    steps = sum(len(epoch_batches(epoch)) for epoch in range(epochs))
    if long := epoch_batches(0).dropped:
        lab.progress.say(f"{name}: {long} examples are longer than the section's length, left out")
    with (
        lab.progress.task(name.replace("/", ": "), steps, "steps") as advance,
        summaries.watched(
            lab.workdir.path / "tensorboard", name, profile_steps=lab.profile_steps
        ) as note,
    ):

        def on_step(step: int, steps: int, found: dict[str, float]) -> None:
            note(step, found)
            advance(1, f"loss {found['loss']:.4f}")

        return fit.fit(
            loss,
            params,
            epoch_batches,
            axes=axes,
            epochs=epochs,
            optimizer=optimizer,
            mesh=lab.mesh,
            microbatches=microbatches,
            lora=lora,
            seed=seed,
            checkpoints=lab.workdir.address(path / CHECKPOINTS),
            on_step=on_step,
            on_epoch=on_epoch,
            stop=interruption.asked,
        )


def verifier_quality(
    scorer: Scorer, examples: Sequence[VerifierExample]
) -> dict[str, float | None]:
    """How well a verifier tells the completions of held-out problems apart; None: undefined."""
    scores = scorer([e.ids for e in examples])
    correct = np.array([e.correct for e in examples], bool)
    top1, _ = metrics.top1(scores, correct, [e.task_id for e in examples])
    quality = {
        "auc": metrics.auc(scores, correct),
        "top1": top1,
        "brier": metrics.brier(scores, correct),
    }
    return {name: None if math.isnan(x) else round(x, 6) for name, x in quality.items()}
