"""What a sweep found, for people: evidence.json as a table, as Markdown and as a page."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from mucode_jax.report import plots, words
from mucode_jax.report.page import environment
from mucode_jax.report.text import grid

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
        found = json.loads(path.read_text(encoding="utf-8"))
        if not found["cells"] or found["differences"] is None:
            raise ValueError("it has no cells")
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    return found


def _groups(found: Json) -> dict[str, list[Json]]:
    groups: dict[str, list[Json]] = {}
    for c in found["cells"]:
        groups.setdefault(f"{c['benchmark']}, {c['split']}", []).append(c)
    return groups


def _name(c: Json) -> str:
    generator = words.generator(c)
    return f"{c['cell']}: {generator}" if c["cell"] else generator


def _way(c: Json) -> str:
    if c["search"] == "greedy":
        return f"greedy, turn {c['turns']}"
    return f"best of {c['n']}: {c['search']}"


def accuracies(cells: Sequence[Json]) -> list[list[str]]:
    """A head and a row a generator: greedy by turn, Best-of-N after the last turn."""
    last = {(c["cell"], c["search"]): c["turns"] for c in cells}  # turns count upwards
    shown = [
        c for c in cells if c["search"] == "greedy" or c["turns"] == last[c["cell"], c["search"]]
    ]
    searches = {c["search"] for c in cells} - {"greedy"}
    order = {way: i for i, way in enumerate(("greedy", *words.ways(searches)))}
    ways = sorted({(order[c["search"]], c["n"], c["turns"], _way(c)) for c in shown})
    columns = list(dict.fromkeys(way for *_, way in ways))
    rows = {_name(c): dict.fromkeys(columns, "–") for c in shown}
    for c in shown:
        rows[_name(c)][_way(c)] = words.with_interval(c["accuracy"], c["ci95"])
    return [["solved, %", *columns], *([name, *row.values()] for name, row in rows.items())]


def differences(found: Sequence[Json]) -> list[list[str]]:
    """A head and a row a pair, after the last turn."""
    last: dict[tuple, Json] = {}
    for d in found:  # turns count upwards
        last[d["cell"], d["a"], d["b"], d["search"], d["n"]] = d
    rows = [["", "search", "difference", "p"]]
    for d in last.values():
        name = f"{d['a']} − {d['b']}"
        low, high = d["ci95"]
        said = f"{words.signed(d['difference'])} ({words.signed(low)} to {words.signed(high)})"
        way = _way(d) if d["search"] == "greedy" or ":" not in d["a"] else f"best of {d['n']}"
        p = "< 0.001" if d["p"] < 0.001 else f"{d['p']:.3f}"
        rows.append([f"{d['cell']}: {name}" if d["cell"] else name, way, said, p])
    return rows


def _note(cells: Sequence[Json]) -> str:
    seeds, problems = (sorted({c[name] for c in cells}) for name in ("seeds", "problems"))
    said = " or ".join(str(n) for n in problems)
    return (
        f"{said} problems, {' or '.join(str(n) for n in seeds)} seeds, protocol "
        f"{cells[0]['protocol']}; intervals are 95 %, by bootstrap over problems and seeds."
    )


def _of(found: Json, cells: Sequence[Json]) -> list[Json]:
    first = cells[0]
    return [
        d
        for d in found["differences"]
        if (d["benchmark"], d["split"]) == (first["benchmark"], first["split"])
    ]


def table(found: Json) -> str:
    """For the terminal."""
    parts = []
    for name, cells in _groups(found).items():
        parts += [f"Solved, %: {name}. {_note(cells)}", grid(accuracies(cells))]
        parts.append("Differences in points\n\n" + grid(differences(_of(found, cells))))
    return "\n\n".join(parts)


def markdown(found: Json) -> str:
    """For the README: last generators, and the differences between them and ways of choosing."""
    parts = []
    for name, cells in _groups(found).items():
        last = {(c["cell"], c["method"]): c["iteration"] for c in cells}  # they count upwards
        final = [c for c in cells if c["iteration"] == last[c["cell"], c["method"]]]
        told = [
            d
            for d in _of(found, cells)
            if d["kind"] in ("ways", "cells") or (d["kind"], d["search"]) == ("methods", "greedy")
        ]
        for rows in (accuracies(final), differences(told)):
            head, *body = ([*row] for row in rows)
            lines = [head, ["---", *["---:"] * (len(head) - 1)], *body]
            parts.append("\n".join("| " + " | ".join(row) + " |" for row in lines))
        parts.append(f"{name}: {_note(cells)}")
    return "\n\n".join(parts) + "\n"


def page(found: Json, config: Json) -> str:
    """report.html of a sweep: self-contained, drawn from evidence.json alone."""
    groups = [
        {
            "name": f"Results on {name}",
            "note": _note(cells),
            "accuracies": accuracies(cells),
            "differences": differences(_of(found, cells)),
            "plots": _plots(f"{i}", cells),
            "published": PUBLISHED if cells[0]["benchmark"] in _AS_PUBLISHED else (),
        }
        for i, (name, cells) in enumerate(_groups(found).items())
    ]
    cells = list(dict.fromkeys(c["cell"] for c in found["cells"] if c["cell"]))
    return (
        environment()
        .get_template("findings.html.jinja")
        .render(
            title=f"{len(cells)} settings side by side" if cells else "Methods side by side",
            said=", ".join(cells),
            groups=groups,
            config=json.dumps(config, indent=2, ensure_ascii=False),
        )
    )


def _plots(name: str, cells: Sequence[Json]) -> list[plots.Plot]:
    found = [_by_turn(name, cells)]
    searched = [c for c in cells if c["search"] != "greedy"]
    if len({c["n"] for c in searched}) > 1:
        found.append(_by_n(name, searched))
    elif searched:
        found.append(_forest(name, "Best-of-N", "by-search", searched))
    greedy = [c for c in cells if c["search"] == "greedy"]
    found.append(_forest(name, "Greedy", "greedy", greedy))
    return found


def _final(cells: Sequence[Json]) -> list[Json]:
    """After the last turn."""
    last = {(_name(c), c["search"], c["n"]): c for c in cells}
    return list(last.values())


def _by_turn(name: str, cells: Sequence[Json]) -> plots.Plot:
    lines: dict[str, list[Json]] = {}
    for c in cells:
        if c["search"] == "greedy":
            lines.setdefault(_name(c), []).append(c)
    about = ("Accuracy by turn", "Greedy, means.", "stopped after turn")
    return _lines(f"{name}-turn", *about, lines, "turns")


def _by_n(name: str, searched: Sequence[Json]) -> plots.Plot:
    lines: dict[str, list[Json]] = {}
    for c in sorted(_final(searched), key=lambda c: c["n"]):
        lines.setdefault(f"{words.generator(c)}, {c['search']}", []).append(c)
    about = ("Best-of-N by N", "After the last turn.", "N, candidates a turn")
    return _lines(f"{name}-n", *about, lines, "n")


def _lines(
    name: str, title: str, caption: str, axis: str, lines: dict[str, list[Json]], along: str
) -> plots.Plot:
    """Accuracy along one of the cells' numbers, a line each."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for i, (label, of) in enumerate(lines.items()):
            style = plots.series(i)
            axes.plot([c[along] for c in of], [c["accuracy"] for c in of], label=label, **style)
        axes.set_xlabel(axis)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        plots.legend(figure, axes)

    alt = f"{title}. " + "; ".join(
        f"{label}: " + ", ".join(f"{words.percent(c['accuracy'])} at {c[along]}" for c in of)
        for label, of in lines.items()
    )
    return plots.drawn(name, title, caption, alt, draw, 3.0 + 0.12 * len(lines))


def _forest(name: str, title: str, kind: str, cells: Sequence[Json]) -> plots.Plot:
    """Accuracy with its interval after the last turn, a row a generator."""
    final = _final(cells)
    rows = list(dict.fromkeys(_name(c) for c in final))
    choices = list(dict.fromkeys(c["search"] for c in final))

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for i, choice in enumerate(choices):
            own = [c for c in final if c["search"] == choice]
            y = np.array([rows.index(_name(c)) for c in own]) + 0.12 * (i - (len(choices) - 1) / 2)
            style = plots.series(i) | {"linestyle": "none"}
            low, high = zip(*(c["ci95"] for c in own), strict=True)
            axes.hlines(y, low, high, color=style["color"], linewidth=1.3, alpha=0.6)
            axes.plot([c["accuracy"] for c in own], y, label=choice, **style)
        axes.set_yticks(range(len(rows)), rows)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.grid(visible=False, axis="y")
        plots.legend(figure, axes, 3)

    alt = f"{title}, after the last turn. " + "; ".join(
        f"{_name(c)}, {c['search']}: {words.percent(c['accuracy'])}" for c in final
    )
    caption = "After the last turn; bars are 95 % intervals."
    return plots.drawn(f"{name}-{kind}", title, caption, alt, draw, 1.2 + 0.32 * len(rows))
