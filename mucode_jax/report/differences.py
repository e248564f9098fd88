"""Paired differences of `evidence` as tables: which pair, how it was searched, points, p-values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mucode_jax.report import text, words
from mucode_jax.report.text import Rows

Json = Any
HEAD = ["", "search", "difference", "p", "p (Holm)", "corrected interval"]
KINDS = {
    "cells": "Settings against the first",
    "methods": "Methods, by each one's last generator",
    "iterations": "Iterations of one method",
    "ways": "Ways of choosing among the candidates",
}


def way(c: Json) -> str:
    """ "greedy, turn 3" or "best of 5: pt+lv" of a cell or a difference of evidence.json."""
    if c["search"] == "greedy":
        return f"greedy, turn\u00a0{c['turns']}"
    return f"best of {c['n']}: {c['search']}"


def rows(differences: Sequence[Json]) -> Rows:
    """A row per pair, after the last turn; what is the same in all cells once, and no pairs of
    cells that share the generator."""
    return [HEAD, *map(_row, _shown(differences))]


def tables(differences: Sequence[Json]) -> dict[str, Rows]:
    """The same by title, the corrected columns only where there is something in them."""
    by_title = text.grouped(_shown(differences), _title)
    return {
        title: [row if any("p_holm" in d for d in of_title) else row[:4] for row in rows(of_title)]
        for title, of_title in by_title.items()
    }


def without_constant(rows: Rows) -> tuple[str, Rows]:
    """(way, rows): of the searches that are all done in one way, the way and no column of it."""
    ways = {row[1] for row in rows[1:]}
    return (ways.pop(), [[row[0], *row[2:]] for row in rows]) if len(ways) == 1 else ("", rows)


def note(differences: Sequence[Json]) -> str:
    """What the corrected columns are of; "" where no comparison is corrected."""
    family = sum("p_holm" in d for d in differences)
    if not family:
        return ""
    return (
        f"p (Holm) and the corrected interval are of the {family} comparisons that conclusions are "
        "drawn from; these intervals hold all at once with 95 % (Bonferroni)."
    )


def _shown(differences: Sequence[Json]) -> list[Json]:
    last: dict[tuple, dict[str, Json]] = {}
    for d in differences:  # turns count upwards
        pair = d["kind"], d["a"], d["b"], d["search"], d["n"]
        last.setdefault(pair, {})[d["cell"]] = d
    shown: list[Json] = []
    for by_cell in last.values():
        first, *others = by_cell.values()
        same = len({(d["difference"], *d["ci95"]) for d in by_cell.values()}) == 1
        shown += [first | {"cell": ""}] if others and same else by_cell.values()
    shown = [d for d in shown if d["kind"] != "cells" or d["ci95"] != [0, 0]]
    return sorted(shown, key=lambda d: [*KINDS].index(d["kind"]))


def _title(d: Json) -> str:
    ways = {"greedy": ", greedy"}.get(d["search"], ", Best-of-N")
    return KINDS[d["kind"]] + (ways if d["kind"] == "methods" else "")


def _row(d: Json) -> list[str]:
    by_way = f"best of {d['n']}" if d["kind"] == "ways" else way(d).replace(": ", ", ")
    points = f"{words.signed(d['difference'])} ({_interval(d['ci95'])})"
    corrected = [_p(d["p_holm"]), _interval(d["ci95_family"])] if "p_holm" in d else ["–", "–"]
    return [_pair(d), by_way, points, _p(d["p"]), *corrected]


def _interval(ends: Sequence[float]) -> str:
    return " to ".join(map(words.signed, ends))


def _p(value: float) -> str:
    return "<\u00a00.001" if value < 0.001 else f"{value:.3f}"


def _pair(d: Json) -> str:
    """ "two − one: μCode 2" of a difference of "two/mucode_2" and "one/mucode_2"."""
    sides = []
    for side in (d["a"], d["b"]):
        cell, _, rest = side.rpartition("/")
        folder, _, choice = rest.partition(": ")
        sides.append((cell, words.generator(words.whose(folder)), choice))
    (cell_a, a, choice_a), (cell_b, b, choice_b) = sides
    if d["kind"] == "cells":
        return f"{cell_a} − {cell_b}: {a}"
    pair = f"{a}: {choice_a} − {choice_b}" if d["kind"] == "ways" else f"{a} − {b}"
    return f"{d['cell']}: {pair}" if d["cell"] else pair
