"""What a sweep shows, for people: evidence.json as a table, as Markdown and as a page."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Sequence
from typing import Any

from mucode_jax.report import differences as paired
from mucode_jax.report import page as pages
from mucode_jax.report import plots, text, words
from mucode_jax.report.text import Rows

Json = Any
PUBLISHED = (
    ("", "greedy", "Best-of-5, pt+lv"),
    ("Llama 3.2 1B, base", "35.1 / 31.1", "47.3 / 35.7"),
    ("Llama 3.2 1B, multi-turn RFT", "–", "46.7 / 36.5"),
    ("Llama 3.2 1B, μCode", "37.9 / 35.4", "51.1 / 41.5"),
    ("Llama 3.2 1B, μCode, expert ov", "–", "48.2 / 38.0"),
    ("Llama 3.2 1B, μCode, expert lv", "–", "48.5 / 39.1"),
    ("Llama 3.1 8B, μCode", "–", "70.6 / 63.8"),
)
_AS_PUBLISHED = ("mbpp", "humaneval", "humanevalpack")


def read(directory: pathlib.Path) -> Json:
    """The evidence.json of a sweep. Raises ValueError where it cannot be read."""
    path = directory / "evidence.json"
    try:
        evidence = json.loads(path.read_text(encoding="utf-8"))
        if not evidence["cells"] or evidence["differences"] is None:
            raise ValueError("it has no cells")
    except (OSError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    return evidence


# Choosing from the evidence ----------------------------------------------------------------------


def _groups(evidence: Json) -> dict[str, tuple[list[Json], list[Json]]]:
    """Place -> its cells and its differences."""
    place = "{benchmark}, {split}".format_map
    differences = text.grouped(evidence["differences"], place)
    return {
        name: (cells, differences.get(name, []))
        for name, cells in text.grouped(_merged(evidence["cells"]), place).items()
    }


def _merged(cells: Sequence[Json]) -> list[Json]:
    """A generator that is the same in several cells (a base, say) once, with no cell."""

    def generator(c: Json) -> tuple:
        return tuple(c[k] for k in ("benchmark", "split", "protocol", "method", "iteration"))

    def way(c: Json) -> tuple:
        return c["search"], c["n"], c["turns"]

    def is_same(cells: Sequence[Json]) -> bool:
        values = {(way(c), c["accuracy"], *c["ci95"]) for c in cells}
        return len({c["cell"] for c in cells}) > 1 and len(values) == len(set(map(way, cells)))

    same = {name for name, its in text.grouped(cells, generator).items() if is_same(its)}
    merged: dict[tuple, Json] = {}
    for c in cells:
        cell = "" if generator(c) in same else c["cell"]
        merged.setdefault((cell, *generator(c), *way(c)), c | {"cell": cell})
    return list(merged.values())


def _name(c: Json) -> str:
    generator = words.generator(c)
    return f"{c['cell']}: {generator}" if c["cell"] else generator


def _final(cells: Sequence[Json]) -> list[Json]:
    """After the last turn."""
    return list({(_name(c), c["search"], c["n"]): c for c in cells}.values())  # turns count upwards


def _apart(cells: Sequence[Json]) -> tuple[list[Json], list[Json]]:
    """Greedy after every turn, searches after the last."""
    greedy = [c for c in cells if c["search"] == "greedy"]
    return greedy, _final([c for c in cells if c["search"] != "greedy"])


def _last(cells: Sequence[Json]) -> list[Json]:
    """Of the base and of each method's last generator."""
    last = {(c["cell"], c["method"]): c["iteration"] for c in cells}  # they count upwards
    return [c for c in cells if c["iteration"] == last[c["cell"], c["method"]]]


# Tables ------------------------------------------------------------------------------------------


def _accuracies(cells: Sequence[Json]) -> Rows:
    """A row per generator: greedy by turn, Best-of-N after the last turn. Where N varies, a row
    also for each way of choosing, and a column for each N."""
    greedy, searched = _apart(cells)
    several = len({c["n"] for c in searched}) > 1
    order = words.ways({c["search"] for c in searched})
    searched.sort(key=lambda c: (c["n"], order.index(c["search"])))
    values: dict[tuple[str, str], str] = {}
    for c in [*sorted(greedy, key=lambda c: c["turns"]), *searched]:
        place = _name(c), paired.way(c)
        if several and c["search"] != "greedy":
            place = f"{_name(c)}, {c['search']}", f"best of {c['n']}"
        values[place] = words.with_interval(c["accuracy"], c["ci95"])
    filled = {row for row, _ in values}
    rows = [r for r in dict.fromkeys([*map(_name, cells), *(r for r, _ in values)]) if r in filled]
    columns = list(dict.fromkeys(column for _, column in values))
    return [["", *columns], *([row, *(values.get((row, c), "–") for c in columns)] for row in rows)]


def _note(cells: Sequence[Json]) -> str:
    seeds, problems = (
        " or ".join(map(str, sorted({c[name] for c in cells}))) for name in ("seeds", "problems")
    )
    return (
        f"{problems} problems, {seeds} seed{'' if seeds == '1' else 's'}, protocol "
        f"{cells[0]['protocol']}; intervals are 95 %, over problems"
        f"{'' if seeds == '1' else ' and seeds, crossed'}."
    )


def table(evidence: Json) -> str:
    """For the terminal."""
    parts = []
    for name, (cells, _) in _groups(evidence).items():
        parts += [f"Solved, %: {name}. {_note(cells)}", text.grid(_accuracies(cells))]
    return "\n\n".join([*parts, difference_tables(evidence)])


def difference_tables(evidence: Json) -> str:
    """Every difference, for the terminal."""
    groups = _groups(evidence)
    parts = [
        f"{title}{f', on {name}' if len(groups) > 1 else ''}: differences in points, paired over "
        f"problems, with 95 % interval\n\n{text.grid(rows)}"
        for name, (_, differences) in groups.items()
        for title, rows in paired.tables(differences).items()
    ]
    return "\n\n".join(filter(None, [*parts, paired.note(evidence["differences"])]))


def markdown(evidence: Json) -> str:
    """For the README: last generators, and the differences between them and ways of choosing."""
    parts = []
    for name, (cells, differences) in _groups(evidence).items():
        wanted = [
            d
            for d in differences
            if d["kind"] in ("ways", "cells") or (d["kind"], d["search"]) == ("methods", "greedy")
        ]
        (_, *columns), *solved = _accuracies(_last(cells))
        parts.append(text.markdown([["solved, %", *columns], *solved]))
        if wanted:
            parts.append(text.markdown(paired.rows(wanted)))
        parts.append(f"{name}: {_note(cells)}")
    parts.append(paired.note(evidence["differences"]))
    return "\n\n".join(filter(None, parts)).replace("\u00a0", " ") + "\n"


# The page ----------------------------------------------------------------------------------------


def page(evidence: Json) -> str:
    """report.html of a sweep: self-contained, drawn from evidence.json alone."""
    groups = _groups(evidence)
    return pages.fill(
        "findings.html.jinja",
        *_headline(evidence, *next(iter(groups.values()))),
        evidence.get("config"),
        about="Findings of several runs",
        groups=[
            {
                "name": f"Results on {name}",
                "note": _note(cells),
                "accuracies": _accuracies(cells),
                "differences": [
                    (title, *paired.without_constant(rows))
                    for title, rows in paired.tables(differences).items()
                ],
                "corrected": paired.note(evidence["differences"]),
                "protocol": words.PROTOCOLS[cells[0]["protocol"]],
                "ways": list(map(words.way, words.ways({c["search"] for c in cells} - {"greedy"}))),
                "plots": _plots(str(i), cells),
                "published": PUBLISHED if cells[0]["benchmark"] in _AS_PUBLISHED else (),
            }
            for i, (name, (cells, differences)) in enumerate(groups.items())
        ],
        made=[
            {"backend": made["backend"], "sandbox isolation": made["isolation"]["level"]}
            | made["versions"]
            for made in evidence.get("made", ())
        ],
    )


def _headline(
    evidence: Json, group: Sequence[Json], differences: Sequence[Json]
) -> tuple[str, str]:
    """The page's title and the sentences below it; of methods, what μCode (or the last) gained."""
    cells = list(dict.fromkeys(c["cell"] for c in evidence["cells"] if c["cell"]))
    if cells:
        return f"{len(cells)} settings side by side", ", ".join(cells)
    greedy = {c["method"]: c for c in _final(_last(_apart(group)[0]))}
    last = greedy.get("mucode") or [*greedy.values()][-1]
    seeds = ", one seed" if last["seeds"] == 1 else f", mean of {last['seeds']} seeds"
    about = {"kind": "methods", "a": last["method"], "b": "base", "search": "greedy"}
    about["turns"] = last["turns"]
    gained = next((d for d in differences if d.items() >= about.items()), None)
    title, sentence = pages.headline(last, greedy["base"] if gained else None, seeds)
    if gained:
        pairs = "problems and seeds"
        sentence += f" {pages.difference(gained['difference'], gained['ci95'], pairs)}"
    return title, sentence


def _plots(name: str, cells: Sequence[Json]) -> list[plots.Plot]:
    greedy, searched = _apart(cells)
    shown = [_by_turn(name, _last(greedy))] if max(c["turns"] for c in greedy) > 1 else []
    shown.append(_forest(f"{name}-greedy", "Greedy", _final(_last(greedy))))
    if len({c["n"] for c in searched}) > 1:
        shown.append(plots.by_n(name, searched))
    elif searched:
        shown.append(_forest(f"{name}-search", f"Best-of-{searched[0]['n']}", searched))
    return shown


def _by_turn(name: str, greedy: Sequence[Json]) -> plots.Plot:
    """Greedy accuracy by turn, a line per generator."""
    lines = [
        plots.Line(
            label,
            [c["turns"] for c in turns],
            [c["accuracy"] for c in turns],
            plots.series(i) if turns[0]["cell"] else plots.look(turns[0]["method"]),
        )
        for i, (label, turns) in enumerate(text.grouped(greedy, _name).items())
    ]
    caption = f"Greedy conversations, solved of {greedy[0]['problems']} problems, means over seeds."
    height = 3.0 + 0.12 * len(lines)
    xlabel = "stopped after turn"
    return plots.lines(f"{name}-turn", "Accuracy by turn", caption, lines, xlabel, height=height)


def _forest(name: str, title: str, final: Sequence[Json]) -> plots.Plot:
    """Accuracy with its interval after the last turn, a row per generator."""
    by_way = text.grouped(final, lambda c: c["search"])
    lines = [
        plots.Line(
            way,
            list(map(_name, by_way[way])),
            [c["accuracy"] for c in by_way[way]],
            plots.look("mucode" if way == "greedy" else way),
            [c["ci95"] for c in by_way[way]],
        )
        for way in words.ways(by_way)
    ]
    rows = list(dict.fromkeys(map(_name, final)))
    solved = f"Solved of {final[0]['problems']} problems"
    caption = f"{solved} after the last turn, means over seeds; bars are 95 % intervals."
    height = 1.0 + len(rows) * max(0.3, 0.16 * len(lines))
    return plots.forest(name, f"{title}, after the last turn", caption, rows, lines, height)
