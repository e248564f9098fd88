"""What a sweep found, for people: evidence.json as a table, as Markdown and as a page."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from mucode_jax.report import plots, text, words
from mucode_jax.report.page import bound, environment

Json = Any
Rows = list[list[str]]
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
_DIFFERENCES = ["", "search", "difference", "p"]
KINDS = {
    "cells": "Settings against the first",
    "methods": "Methods, by each one's last generator",
    "iterations": "Iterations of one method",
    "ways": "Ways of choosing among the candidates",
}


def read(directory: pathlib.Path) -> Json:
    """The evidence.json of a sweep. Raises ValueError where it cannot be read."""
    path = directory / "evidence.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not found["cells"] or found["differences"] is None:
            raise ValueError("it has no cells")
    except (OSError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    return found


def _groups(found: Json) -> dict[str, list[Json]]:
    groups: dict[str, list[Json]] = {}
    for c in _merged(found["cells"]):
        groups.setdefault(f"{c['benchmark']}, {c['split']}", []).append(c)
    return groups


def _merged(cells: Sequence[Json]) -> list[Json]:
    """With a generator that is the same in every cell (a base, say) once, of no cell."""
    seen: dict[tuple, dict[tuple, set]] = {}
    homes: dict[tuple, set[str]] = {}
    for c in cells:
        of, at = _of_generator(c), (c["search"], c["n"], c["turns"])
        seen.setdefault(of, {}).setdefault(at, set()).add((c["accuracy"], *c["ci95"]))
        homes.setdefault(of, set()).add(c["cell"])
    same = {
        of
        for of, values in seen.items()
        if len(homes[of]) > 1 and all(len(v) == 1 for v in values.values())
    }
    kept: dict[tuple, Json] = {}
    for c in cells:
        cell = "" if _of_generator(c) in same else c["cell"]
        at = c["search"], c["n"], c["turns"]
        kept.setdefault((cell, *_of_generator(c), *at), c | {"cell": cell})
    return list(kept.values())


def _of_generator(c: Json) -> tuple:
    return tuple(c[k] for k in ("benchmark", "split", "protocol", "method", "iteration"))


def _name(c: Json) -> str:
    generator = words.generator(c)
    return f"{c['cell']}: {generator}" if c["cell"] else generator


def _way(c: Json) -> str:
    if c["search"] == "greedy":
        return f"greedy, turn\u00a0{c['turns']}"
    return f"best of {c['n']}: {c['search']}"


def _final(cells: Sequence[Json]) -> list[Json]:
    """After the last turn."""
    last = {(_name(c), c["search"], c["n"]): c for c in cells}  # turns count upwards
    return list(last.values())


def _apart(cells: Sequence[Json]) -> tuple[list[Json], list[Json]]:
    """Greedy after every turn, searches after the last."""
    greedy = [c for c in cells if c["search"] == "greedy"]
    return greedy, _final([c for c in cells if c["search"] != "greedy"])


def _last(cells: Sequence[Json]) -> list[Json]:
    """Of the base and of each method's last generator."""
    last = {(c["cell"], c["method"]): c["iteration"] for c in cells}  # they count upwards
    return [c for c in cells if c["iteration"] == last[c["cell"], c["method"]]]


def accuracies(cells: Sequence[Json]) -> Rows:
    """A head and a row a generator: greedy by turn, Best-of-N after the last turn. Where N varies,
    a row also for each way of choosing, and a column for each N."""
    greedy, searched = _apart(cells)
    several = len({c["n"] for c in searched}) > 1
    order = words.ways({c["search"] for c in searched})
    searched.sort(key=lambda c: (c["n"], order.index(c["search"])))
    values: dict[tuple[str, str], str] = {}
    for c in [*sorted(greedy, key=lambda c: c["turns"]), *searched]:
        at = _name(c), _way(c)
        if several and c["search"] != "greedy":
            at = f"{_name(c)}, {c['search']}", f"best of {c['n']}"
        values[at] = words.with_interval(c["accuracy"], c["ci95"])
    columns = list(dict.fromkeys(column for _, column in values))
    names = [*map(_name, cells), *(row for row, _ in values)]
    rows = [row for row in dict.fromkeys(names) if any(row == of for of, _ in values)]
    return [["", *columns], *([row, *(values.get((row, c), "–") for c in columns)] for row in rows)]


def _spoken(name: str) -> tuple[str, str, str]:
    """(cell, generator, way) of what a difference calls "bce/mucode_2" or "mucode: pt"."""
    cell, _, rest = name.rpartition("/")
    folder, _, way = rest.partition(": ")
    return cell, words.generator(words.whose(folder)), way


def _pair(d: Json) -> str:
    (cell_a, a, way_a), (cell_b, b, way_b) = _spoken(d["a"]), _spoken(d["b"])
    if d["kind"] == "cells":
        return f"{cell_a} − {cell_b}: {a}"
    said = f"{a}: {way_a} − {way_b}" if d["kind"] == "ways" else f"{a} − {b}"
    return f"{d['cell']}: {said}" if d["cell"] else said


def differences(found: Sequence[Json]) -> dict[str, Rows]:
    """What is held against what -> a head and a row a pair, after the last turn; what is the same
    in all cells once, and no pairs of cells that share the generator."""
    last: dict[tuple, dict[str, Json]] = {}
    for d in found:  # turns count upwards
        at = d["kind"], d["a"], d["b"], d["search"], d["n"]
        last.setdefault(at, {})[d["cell"]] = d
    shown: list[Json] = []
    for of_cells in last.values():
        one, *others = of_cells.values()
        same = all(
            d["difference"] == one["difference"] and d["ci95"] == one["ci95"] for d in others
        )
        shown += [one | {"cell": ""}] if others and same else of_cells.values()
    tables: dict[str, Rows] = {}
    for d in sorted(shown, key=lambda d: [*KINDS].index(d["kind"])):
        low, high = d["ci95"]
        if d["kind"] == "cells" and low == d["difference"] == high == 0:
            continue
        way = f"best of {d['n']}" if d["kind"] == "ways" else _way(d)
        title = KINDS[d["kind"]]
        if d["kind"] == "methods":
            title += ", greedy" if d["search"] == "greedy" else ", Best-of-N"
        said = f"{words.signed(d['difference'])} ({words.signed(low)} to {words.signed(high)})"
        p = "<\u00a00.001" if d["p"] < 0.001 else f"{d['p']:.3f}"
        rows = tables.setdefault(title, [_DIFFERENCES])
        rows.append([_pair(d), way.replace(": ", ", "), said, p])
    return tables


def _note(cells: Sequence[Json]) -> str:
    seeds, problems = (sorted({c[name] for c in cells}) for name in ("seeds", "problems"))
    some = " or ".join(str(n) for n in seeds) + (" seed" if seeds == [1] else " seeds")
    return (
        f"{' or '.join(str(n) for n in problems)} problems, {some}, protocol "
        f"{cells[0]['protocol']}; intervals are 95 %, by bootstrap over problems and seeds."
    )


def _of(found: Json, cells: Sequence[Json]) -> list[Json]:
    where = cells[0]["benchmark"], cells[0]["split"]
    return [d for d in found["differences"] if (d["benchmark"], d["split"]) == where]


def table(found: Json) -> str:
    """For the terminal."""
    parts = []
    for name, cells in _groups(found).items():
        parts += [f"Solved, %: {name}. {_note(cells)}", text.grid(accuracies(cells))]
    return "\n\n".join([*parts, difference_tables(found)])


def difference_tables(found: Json) -> str:
    """Every difference, for the terminal."""
    groups = _groups(found)
    return "\n\n".join(
        f"{title}{f', on {name}' if len(groups) > 1 else ''}: differences in points, paired over "
        f"problems, with 95 % interval\n\n{text.grid(rows)}"
        for name, cells in groups.items()
        for title, rows in differences(_of(found, cells)).items()
    )


def markdown(found: Json) -> str:
    """For the README: last generators, and the differences between them and ways of choosing."""
    parts = []
    for name, cells in _groups(found).items():
        told = [
            d
            for d in _of(found, cells)
            if d["kind"] in ("ways", "cells") or (d["kind"], d["search"]) == ("methods", "greedy")
        ]
        (_, *columns), *solved = accuracies(_last(cells))
        between = [row for rows in differences(told).values() for row in rows[1:]]
        parts.append(text.markdown([["solved, %", *columns], *solved]))
        if between:
            parts.append(text.markdown([_DIFFERENCES, *between]))
        parts.append(f"{name}: {_note(cells)}")
    return "\n\n".join(parts).replace("\u00a0", " ") + "\n"


def page(found: Json) -> str:
    """report.html of a sweep: self-contained, drawn from evidence.json alone."""
    groups = [
        {
            "name": f"Results on {name}",
            "note": _note(cells),
            "accuracies": accuracies(cells),
            "differences": [
                (title, *_without_constant(rows))
                for title, rows in differences(_of(found, cells)).items()
            ],
            "protocol": words.PROTOCOLS[cells[0]["protocol"]],
            "ways": [
                f"{way}: {words.CHOICES.get(way, 'a way of your own')}"
                for way in words.ways({c["search"] for c in cells} - {"greedy"})
            ],
            "plots": _plots(str(i), cells),
            "published": PUBLISHED if cells[0]["benchmark"] in _AS_PUBLISHED else (),
        }
        for i, (name, cells) in enumerate(_groups(found).items())
    ]
    title, said = _headline(found)
    return (
        environment()
        .get_template("findings.html.jinja")
        .render(
            title=bound(title),
            said=bound(said),
            groups=groups,
            made=[
                {"backend": of["backend"], "sandbox isolation": of["isolation"]["level"]}
                | of["versions"]
                for of in found.get("made", ())
            ],
            config=json.dumps(found["config"], indent=2, ensure_ascii=False)
            if "config" in found
            else "",
        )
    )


def _headline(found: Json) -> tuple[str, str]:
    """The page's title and the sentences below it; of methods, what μCode (or the last) gained."""
    cells = list(dict.fromkeys(c["cell"] for c in found["cells"] if c["cell"]))
    if cells:
        return f"{len(cells)} settings side by side", ", ".join(cells)
    group = next(iter(_groups(found).values()))
    greedy = {c["method"]: c for c in _final(_last(_apart(group)[0]))}
    last = greedy.get("mucode") or [*greedy.values()][-1]
    title = f"{words.generator(last)} solves {words.percent(last['accuracy'])}"
    seeds = "one seed" if last["seeds"] == 1 else f"mean of {last['seeds']} seeds"
    said = (
        f"of {last['problems']} held-out problems, in greedy conversations of at most "
        f"{last['turns']} turns, {seeds}."
    )
    wanted = {"kind": "methods", "a": last["method"], "b": "base", "search": "greedy"}
    for d in _of(found, group):
        if d.items() >= wanted.items() and d["turns"] == last["turns"]:
            low, high = map(words.signed, d["ci95"])
            title += f", its base {words.percent(greedy['base']['accuracy'])}"
            said += (
                f" The difference is {words.signed(d['difference'])} points (95 % interval {low} "
                f"to {high}, paired over problems and seeds)."
            )
    return title, said


def _without_constant(rows: Rows) -> tuple[str, Rows]:
    """(way, rows): of the searches that are all done in one way, the way and no column of it."""
    ways = {row[1] for row in rows[1:]}
    return (ways.pop(), [[row[0], *row[2:]] for row in rows]) if len(ways) == 1 else ("", rows)


def _plots(name: str, cells: Sequence[Json]) -> list[plots.Plot]:
    greedy, searched = _apart(cells)
    found = [_by_turn(name, _last(greedy))] if max(c["turns"] for c in greedy) > 1 else []
    found.append(_forest(f"{name}-greedy", "Greedy", _final(_last(greedy))))
    if len({c["n"] for c in searched}) > 1:
        found.append(plots.by_n(name, searched))
    elif searched:
        found.append(_forest(f"{name}-search", f"Best-of-{searched[0]['n']}", searched))
    return found


def _by_turn(name: str, greedy: Sequence[Json]) -> plots.Plot:
    """Greedy accuracy by turn, a line a generator."""
    lines: dict[str, list[Json]] = {}
    for c in greedy:
        lines.setdefault(_name(c), []).append(c)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for i, (label, of) in enumerate(lines.items()):
            look = plots.series(i) if of[0]["cell"] else plots.look(of[0]["method"])
            axes.plot([c["turns"] for c in of], [c["accuracy"] for c in of], label=label, **look)
        axes.set_xlabel("stopped after turn")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        plots.legend(figure, axes)

    alt = "Accuracy by turn. " + "; ".join(
        f"{label}: " + ", ".join(f"{words.percent(c['accuracy'])} at {c['turns']}" for c in of)
        for label, of in lines.items()
    )
    caption = "Greedy conversations, solved problems, means over seeds."
    height = 3.0 + 0.12 * len(lines)
    return plots.drawn(f"{name}-turn", "Accuracy by turn", caption, alt, draw, height)


def _forest(name: str, title: str, final: Sequence[Json]) -> plots.Plot:
    """Accuracy with its interval after the last turn, a row a generator."""
    rows = list(dict.fromkeys(_name(c) for c in final))
    choices = words.ways({c["search"] for c in final})

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for i, choice in enumerate(choices):
            own = [c for c in final if c["search"] == choice]
            y = np.array([rows.index(_name(c)) for c in own], float)
            y += 0.8 / len(choices) * (i - (len(choices) - 1) / 2)
            look = plots.look("mucode" if choice == "greedy" else choice) | {"linestyle": "none"}
            low, high = zip(*(c["ci95"] for c in own), strict=True)
            axes.hlines(y, low, high, color=look["color"], linewidth=1.3, alpha=0.6)
            axes.plot([c["accuracy"] for c in own], y, label=choice, **look)
        axes.set_yticks(range(len(rows)), rows)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.grid(visible=False, axis="y")
        if len(choices) > 1:
            plots.legend(figure, axes, 3)

    alt = f"{title}, after the last turn. " + "; ".join(
        f"{_name(c)}, {c['search']}: {words.percent(c['accuracy'])}" for c in final
    )
    caption = "Solved problems after the last turn; bars are 95 % intervals."
    height = 1.0 + len(rows) * max(0.3, 0.16 * len(choices))
    return plots.drawn(name, f"{title}, after the last turn", caption, alt, draw, height)
