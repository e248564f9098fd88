"""The trained models that a work directory holds."""

from __future__ import annotations

import dataclasses
import pathlib

from mucode_jax.report import words


@dataclasses.dataclass(frozen=True)
class Trained:
    """A model that a run has trained.

    Attributes:
      method, iteration: the generator's; a verifier has those of the generator whose rollouts it
        was trained on last.
      path: its model directory.
    """

    method: str
    iteration: int
    path: pathlib.Path


def find(
    workdir: pathlib.Path, what: str, method: str | None = None, iteration: int | None = None
) -> Trained:
    """A model of a work directory: of `method` (μCode, else the run's only one), the last iteration
    unless another is named. A method that rolled out the base alone has the base's verifier.

    Raises:
      ValueError: there is none; the message says which there are.
    """
    models = []
    for record in sorted(workdir.glob(f"stages/*/{what}*/stage.json")):
        generator = words.whose(record.parts[-3])
        owners = [generator["method"]]
        if record.parts[-3:-1] == ("base", "verifier_singles"):  # of single-turn samples
            owners = [m for m in ("star", "ssd") if any(workdir.glob(f"stages/{m}_*"))] or ["star"]
        for owner in owners:
            models.append(Trained(owner, generator["iteration"], record.parent / "model"))
    if not models:
        raise ValueError(f"{workdir} holds no trained {what} (a stage that is finished)")
    methods = {model.method for model in models} - {"base"}
    if method is None:
        method = "mucode" if "mucode" in methods or len(methods) != 1 else methods.pop()
    matching = [m for m in models if m.method == method and iteration in (None, m.iteration)]
    if not matching and what == "verifier" and iteration is None:
        matching = [m for m in models if m.method == "base"]
    if not matching:
        wanted = method if iteration is None else f"{method} {iteration}"
        held = ", ".join(f"{m.method} {m.iteration}" if m.iteration else m.method for m in models)
        raise ValueError(f"{workdir} holds no {what} of {wanted}; it holds: {held}")
    return max(matching, key=lambda model: model.iteration)
