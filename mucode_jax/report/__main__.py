"""Writes the reports of finished runs anew, and compares runs.

    python -m mucode_jax.report runs/quickstart
    python -m mucode_jax.report runs/seed0 runs/seed1 runs/seed2
    python -m mucode_jax.report --markdown runs/seed0 runs/seed1 runs/seed2

Each DIR is the --workdir of a finished run. One: its table is printed; several: a comparison. A
sweep's (with evidence.json) goes alone.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
from collections.abc import Sequence

from mucode_jax import report
from mucode_jax.command import Parser, fail
from mucode_jax.report import compare, evidence, findings, picture
from mucode_jax.workdir import write_atomically


def _flags(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser("report", __doc__, "0 done, 1 a report could not be written, 2 bad input")
    parser.add_argument("directories", metavar="DIR", nargs="+", type=pathlib.Path)
    parser.add_argument(
        "--markdown",
        action="store_true",
        help="print the results as a Markdown table, and write no reports",
    )
    parser.add_argument(
        "--picture",
        metavar="PNG",
        type=pathlib.Path,
        help="of the first report's upper part; needs chromium",
    )
    return parser.parse_args(argv)


def _evidence(directory: pathlib.Path, markdown: bool) -> int:
    """The same for a sweep (`mucode_jax.sweep`)."""
    found = findings.read(directory)
    print(findings.markdown(found) if markdown else findings.table(found))
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    flags = _flags(argv)
    try:
        if len(flags.directories) == 1 and (flags.directories[0] / "evidence.json").exists():
            return _evidence(flags.directories[0], flags.markdown)
        results = [report.read(directory) for directory in flags.directories]
        if flags.markdown:
            print(findings.markdown(evidence.evidence({"": flags.directories})), end="")
            return 0
        pages = [report.render(*of) for of in zip(flags.directories, results, strict=True)]
        runs = compare.runs(flags.directories, results)
        shown = compare.side_by_side(runs) if len(runs) > 1 else report.table(results[0])
    except ValueError as error:
        return fail("report", str(error), 2)
    except (AttributeError, ArithmeticError, IndexError, KeyError, TypeError) as error:
        what = f"{type(error).__name__}: {error}"
        return fail(
            "report", f"the results or stages there are damaged ({what}); run main again", 2
        )
    print(shown)
    for directory, page in zip(flags.directories, pages, strict=True):
        path = directory / "report.html"
        try:
            write_atomically(path, page)
        except OSError as error:
            return fail("report", f"{path} cannot be written: {error.strerror}", 1)
        print(path, file=sys.stderr)
    if flags.picture is not None:
        try:
            picture.take(flags.directories[0] / "report.html", flags.picture)
        except (ValueError, OSError) as error:
            return fail("report", str(error), 1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
