"""Takes a trained model out of a work directory, with a model card made of what was measured.

    python -m mucode_jax.export --workdir runs/quickstart --what generator --out my-generator
    python -m mucode_jax.export --workdir runs/quickstart --what verifier --out my-verifier
    python -m mucode_jax.export --workdir runs/quickstart --what generator --method star \\
        --iteration 1 --out star-1

The directory is one that transformers, vLLM and this package open: a LlamaForCausalLM, or a
LlamaForSequenceClassification with one label. Without --method and --iteration it is μCode's last.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import shutil
import sys
from collections.abc import Sequence
from typing import Any

from mucode_jax import bucket, card, report
from mucode_jax.command import Parser, fail, show
from mucode_jax.workdir import intact_stage

Json = Any
WHAT = ("generator", "verifier")


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
        of = report.words.whose(record.parts[-3])
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


def export(trained: Trained, what: str, results: Json, out: pathlib.Path) -> None:
    """Copies a model into `out` and writes its card; `out` appears when it is whole.

    Raises:
      ValueError: `out` holds something already or cannot be made; the model, or what results.json
        says of it, is damaged.
      OSError: it could not be written to its end (a full disk).
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"--out {out} is there already; give a new directory")
    intact_stage(trained.path.parent)
    try:
        licence = card.licence(card.base(what, results["config"]), trained.path)
        text = card.write(what, trained.method, trained.iteration, results, licence)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        told = f"{type(error).__name__}: {error}"
        raise ValueError(
            f"results.json lacks what the card tells ({told}); run main again"
        ) from error
    whole = pathlib.Path(os.path.realpath(out))
    part = whole.with_name(f".{whole.name}.part")
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
    except OSError as error:
        raise ValueError(f"--out {out} cannot be made: {error.strerror}") from error
    try:
        shutil.copytree(trained.path, part, dirs_exist_ok=True)
        (part / "README.md").write_text(text, encoding="utf-8")
        if licence.notice and not any(part.glob("NOTICE*")):
            (part / "NOTICE").write_text(licence.notice + "\n", encoding="utf-8")
        part.replace(whole)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = Parser("export", __doc__, "0 exported, 1 it could not be written, 2 bad input")
    parser.add_argument("--workdir", required=True, help="of a finished run (gs:// too)")
    parser.add_argument("--what", required=True, choices=WHAT)
    parser.add_argument("--out", required=True, type=pathlib.Path, help="a directory to make")
    parser.add_argument("--method", choices=tuple(report.words.METHODS), help="default: mucode")
    parser.add_argument("--iteration", type=int, help="default: the method's last")
    flags = parser.parse_args(argv)
    try:
        home = bucket.fetch(
            flags.workdir, lambda name: name.endswith(("results.json", "stage.json"))
        )
        results = report.read(home)
        trained = find(home, flags.what, flags.method, flags.iteration)
        bucket.fetch(flags.workdir, lambda name: (home / name).is_relative_to(trained.path))
        export(trained, flags.what, results, flags.out)
    except ValueError as error:
        return fail("export", str(error), 2)
    except shutil.Error as error:
        return fail("export", f"{flags.out} cannot be written: {error.args[0][0][2]}", 1)
    except OSError as error:
        return fail("export", f"{flags.out} cannot be written: {error.strerror}", 1)
    except KeyboardInterrupt:
        return fail("export", "interrupted", 130)
    return show(str(flags.out))


if __name__ == "__main__":
    sys.exit(main())
