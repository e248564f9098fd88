"""Takes a trained model out of a work directory, with a model card made of what was measured.

    python -m mucode_jax.export --workdir runs/quickstart --what generator --out my-generator
    python -m mucode_jax.export --workdir runs/quickstart --what verifier --out my-verifier
    python -m mucode_jax.export --workdir runs/quickstart --what generator --method star \\
        --iteration 1 --out star-1

The directory is one that transformers, vLLM and this package open: a LlamaForCausalLM, or a
LlamaForSequenceClassification with one label. Without --method and --iteration it is μCode's last.
"""

from __future__ import annotations

from mucode_jax.runtime import interruption

if __name__ == "__main__":
    interruption.leave_at_once()  # the imports below take seconds

import os
import pathlib
import shutil
import sys
from collections.abc import Sequence
from typing import Any

from mucode_jax import report
from mucode_jax.report import card
from mucode_jax.report.trained import Trained, find
from mucode_jax.runtime import bucket
from mucode_jax.runtime.command import Parser, fail, show
from mucode_jax.runtime.ledger import intact_stage

Json = Any
WHAT = ("generator", "verifier")


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
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(
            f"results.json lacks what the card tells ({reason}); run main again"
        ) from error
    whole = pathlib.Path(os.path.realpath(out))
    part = whole.with_name(f".{whole.name}.part")
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
    except OSError as error:
        raise ValueError(f"--out {out} cannot be made: {error.strerror}") from error
    interruption.unfinished.add(part)
    try:
        shutil.copytree(trained.path, part, dirs_exist_ok=True)
        (part / "README.md").write_text(text, encoding="utf-8")
        if licence.notice and not any(part.glob("NOTICE*")):
            (part / "NOTICE").write_text(licence.notice + "\n", encoding="utf-8")
        part.replace(whole)
    finally:
        shutil.rmtree(part, ignore_errors=True)
        interruption.unfinished.discard(part)


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
    return show(str(flags.out))


if __name__ == "__main__":
    sys.exit(main())
