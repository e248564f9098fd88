"""Writes the reports of finished runs anew, and compares runs.

    python -m mucode_jax.report runs/quickstart
    python -m mucode_jax.report runs/seed0 runs/seed1 runs/seed2 --page seeds.html
    python -m mucode_jax.report --markdown runs/seed0 runs/seed1 runs/seed2

Each DIR is the --workdir of a finished run, gs:// too. One: its table is printed; several: a
comparison. A sweep's (with evidence.json) goes alone.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
from collections.abc import Sequence

from mucode_jax import report
from mucode_jax.report import compare, evidence, findings, page
from mucode_jax.runtime import bucket
from mucode_jax.runtime.command import Parser, fail, is_ours, show
from mucode_jax.runtime.files import write_atomically


def _flags(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser("report", __doc__, "0 done, 1 a report could not be written, 2 bad input")
    parser.add_argument("directories", metavar="DIR", nargs="+")
    parser.add_argument(
        "--markdown",
        action="store_true",
        help="print the results as a Markdown table, and write no reports",
    )
    parser.add_argument(
        "--page",
        metavar="HTML",
        type=pathlib.Path,
        help="write the comparison of several as a page",
    )
    flags = parser.parse_args(argv)
    if flags.page and len(flags.directories) == 1:
        parser.error("--page compares several runs; a single one has report.html")
    return flags


def _is_read(name: str) -> bool:
    """Whether a report needs this file of a bucket."""
    return name.endswith((".json", ".jsonl")) and not {"model", "pieces"} & set(name.split("/"))


def _made(
    directories: Sequence[pathlib.Path], flags: argparse.Namespace
) -> tuple[str, dict[pathlib.Path, str]]:
    """What to print, and the pages to write."""
    first, *others = directories
    if not others and (first / "evidence.json").exists():  # a sweep
        sweep = findings.read(first)
        if flags.markdown:
            return findings.markdown(sweep), {}
        return findings.table(sweep), {first / "report.html": findings.page(sweep)}
    results = [report.read(directory) for directory in directories]
    if flags.markdown:
        return findings.markdown(evidence.evidence({"": directories})), {}
    pages = {
        directory / "report.html": page.render(directory, of_run)
        for directory, of_run in zip(directories, results, strict=True)
    }
    if not others:
        return report.table(results[0]), pages
    runs = dict(zip(compare.names(directories), results, strict=True))
    shown = compare.side_by_side(runs)
    cells = {name: [directory] for name, directory in zip(runs, directories, strict=True)}
    try:
        differences = evidence.evidence({"": directories} if compare.repeats(results) else cells)
    except ValueError as error:  # the accuracies can be shown all the same
        if flags.page:
            raise
        return f"{shown}\n\nNo differences: {error}", pages
    if flags.page:
        pages[flags.page] = findings.page(differences)
    return f"{shown}\n\n{findings.difference_tables(differences)}", pages


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    flags = _flags(argv)
    try:
        directories = [bucket.fetch(where, _is_read) for where in flags.directories]
        homes = dict(zip(directories, flags.directories, strict=True))
        if len(homes) < len(directories):
            raise ValueError("a directory is named twice; give each run once")
        shown, pages = _made(directories, flags)
    except OSError as error:
        return fail("report", f"{error.filename} cannot be read: {error.strerror}", 2)
    except KeyboardInterrupt:
        return fail("report", "interrupted", 130)
    except Exception as error:  # results.json and stages may hold anything
        if isinstance(error, ValueError) and is_ours(error):
            return fail("report", str(error), 2)
        where, what = ", ".join(flags.directories), f"{type(error).__name__}: {error}"
        damaged = f"{where}: results or stages are damaged ({what}); run main again"
        return fail("report", damaged, 2)
    for path, content in pages.items():
        try:
            write_atomically(path, content)
            bucket.store(homes.get(path.parent, ""), path)
        except OSError as error:
            impossible = isinstance(error, (FileNotFoundError, NotADirectoryError, PermissionError))
            message = f"{path} cannot be written: {error.strerror}"
            return fail("report", message, 2 if impossible else 1)
        print(path, file=sys.stderr)
    return show(shown.rstrip("\n"))


if __name__ == "__main__":
    sys.exit(main())
