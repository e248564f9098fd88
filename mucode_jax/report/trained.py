"""The trained models that a work directory holds."""

from __future__ import annotations

import dataclasses
import pathlib

from mucode_jax.report import words


@dataclasses.dataclass(frozen=True)
class Trained:
    """A model that a run has trained.

    Attributes:
      method, iteration: the generator's; a verifier bears those of the generator whose rollouts it
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
    found = []
    for record in sorted(workdir.glob(f"stages/*/{what}*/stage.json")):
        of = words.whose(record.parts[-3])
        if record.parts[-2] == "verifier_singles":  # of single-turn samples
            of["method"] = "star"
        found.append(Trained(**of, path=record.parent / "model"))
    there = ", ".join(f"{t.method} {t.iteration}" if t.iteration else t.method for t in found)
    if not found:
        raise ValueError(f"{workdir} holds no trained {what} (a stage that is finished)")
    methods = {t.method for t in found} - {"base"}
    if method is None:
        method = "mucode" if "mucode" in methods or len(methods) != 1 else methods.pop()
    own = [t for t in found if t.method == method and iteration in (None, t.iteration)]
    if not own and what == "verifier" and iteration is None:
        own = [t for t in found if t.method == "base"]
    if not own:
        wanted = method if iteration is None else f"{method} {iteration}"
        raise ValueError(f"{workdir} holds no {what} of {wanted}; it holds: {there}")
    return max(own, key=lambda t: t.iteration)
