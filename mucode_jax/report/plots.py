"""The report's plots: matplotlib figures as inline SVG that takes its colours from the page.

Figures are drawn small, so that their text stays readable on a phone, and in stand-in colours that
are exchanged for the page's own (`var(--…)`), so that one drawing serves light and dark.
"""

from __future__ import annotations

import dataclasses
import io
import re
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib
import numpy as np
from markupsafe import escape
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from mucode_jax.report import stages, text, words
from mucode_jax.rollouts.intervals import wilson
from mucode_jax.training import metrics

Json = Any
Interval = Sequence[float]  # its lower and upper end
Look = dict[str, Any]  # how matplotlib draws a line

# The page's colours and the stand-in for each, in which nothing else may be drawn.
_COLOURS = {
    variable: f"#0101{i:02x}"
    for i, variable in enumerate(
        ["ink", "muted", "rule"]
        + [f"m-{method}" for method in words.METHODS]
        + [f"c-{choice}".replace("+", "-") for choice in words.CHOICES]
    )
}
_INK, _MUTED, _RULE = (_COLOURS[variable] for variable in ("ink", "muted", "rule"))
_MARKERS = dict(zip((*words.METHODS, *words.CHOICES), "o>Ds^v<PosD^vPX*", strict=True))
_STYLE = {
    "svg.fonttype": "none",  # text stays text: it can be read aloud, searched and coloured
    "svg.hashsalt": "mucode_jax",
    "font.size": 11,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _MUTED,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": _RULE,
    "grid.linewidth": 0.8,
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "legend.frameon": False,
    "legend.fontsize": 10.5,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
}


@dataclasses.dataclass(frozen=True)
class Plot:
    """A drawing: its name (unique in a page), heading, caption and SVG with a text alternative."""

    name: str
    title: str
    caption: str
    svg: str


@dataclasses.dataclass(frozen=True)
class Line:
    """A line of a plot: fractions over numbers or rows, with whiskers where there are intervals."""

    label: str
    x: Sequence[float] | Sequence[str]
    y: Sequence[float]
    look: Look
    intervals: Sequence[Interval] = ()


def look(name: str) -> Look:
    """How a method or a way to choose is drawn."""
    variable = f"m-{name}" if name in words.METHODS else f"c-{name}".replace("+", "-")
    return {"color": _COLOURS.get(variable, _INK), "marker": _MARKERS.get(name, "o")}


def series(i: int) -> Look:
    """How the i-th of several lines is drawn that are neither methods nor ways to choose."""
    methods = [*words.METHODS][:0:-1]  # μCode's look first, never the base's
    style = ("-", "--", ":", "-.")[i // len(methods) % 4]
    return look(methods[i % len(methods)]) | {"linestyle": style}


# Kinds of plots ----------------------------------------------------------------------------------


def drawn(
    name: str,
    title: str,
    caption: str,
    alt: str,
    draw: Callable[[Axes], None],
    height: float = 3.1,  # inches
) -> Plot:
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(4.6, height), layout="constrained")
        draw(figure.subplots())
        out = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(out, format="svg", metadata=nothing)
    return Plot(name, title, caption, _inline(out.getvalue(), name, alt))


def _inline(svg: str, name: str, alt: str) -> str:
    """matplotlib's SVG file as an element of a page.

    Without prologue, namespaces (the page's parser knows them) and metadata; ids are made unique by
    `name`; colours become the page's; `alt` is what a screen reader says.
    """
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg)
    svg = re.sub(r"""(\bid="|(?:xlink:)?href="#|url\(#)""", rf"\g<1>{name}-", svg)
    svg = svg.replace("xlink:href", "href")
    svg = re.sub(r"font: [^;\"]*?([\d.]+px)[^;\"]*", r"font-size: \1", svg)
    for variable, colour in _COLOURS.items():
        svg = svg.replace(colour, f"var(--{variable})")
    return svg.replace("<svg", f'<svg role="img" aria-label="{escape(alt)}"', 1).strip()


def _percent(axis: Axis) -> None:
    axis.set_major_formatter(PercentFormatter(1.0, decimals=0))


def _legend(axes: Axes, columns: int) -> None:
    handles, labels = axes.get_legend_handles_labels()
    axes.figure.legend(handles, labels, loc="outside lower center", ncols=columns, handlelength=1.6)


def _spread(count: int, width: float) -> np.ndarray:
    """Offsets that keep the whiskers of `count` lines apart."""
    return (np.arange(count) - (count - 1) / 2) * (width / max(count, 1))


def _draw_line(axes: Axes, line: Line) -> None:
    if line.intervals:
        low, high = zip(*line.intervals, strict=True)
        axes.vlines(
            line.x[-len(low) :], low, high, color=line.look["color"], linewidth=1, alpha=0.55
        )
    axes.plot(line.x, line.y, label=line.label, **line.look)


def lines(
    name: str,
    title: str,
    caption: str,
    shown: Sequence[Line],
    xlabel: str,
    columns: int = 2,
    height: float = 3.5,
) -> Plot:
    """Fractions over whole numbers; whiskers belong to a line's last points."""

    def draw(axes: Axes) -> None:
        for line in shown:
            _draw_line(axes, line)
        axes.set_xlabel(xlabel)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(visible=False, axis="x")
        ends = [value for line in shown for value in (*line.y, *np.ravel(line.intervals))]
        margin = max(0.02, 0.06 * (max(ends) - min(ends)))
        axes.set_ylim(max(0.0, min(ends) - margin), min(1.0, max(ends) + margin))
        _percent(axes.yaxis)
        _legend(axes, columns)

    points = [
        ", ".join(f"{words.percent(y)} at {round(x)}" for x, y in zip(line.x, line.y, strict=True))
        for line in shown
    ]
    alt = "; ".join(f"{line.label}: {at}" for line, at in zip(shown, points, strict=True))
    return drawn(name, title, caption, f"{title}. {alt}", draw, height)


def forest(
    name: str,
    title: str,
    caption: str,
    rows: Sequence[str],
    shown: Sequence[Line],
    height: float = 3.1,
) -> Plot:
    """Fractions with their intervals in rows, those of several lines below each other."""

    def draw(axes: Axes) -> None:
        for line, offset in zip(shown, _spread(len(shown), 0.6), strict=True):
            look = line.look | {"linestyle": "none", "markersize": 6}
            y = np.array([rows.index(row) for row in line.x]) + offset
            low, high = zip(*line.intervals, strict=True)
            axes.hlines(y, low, high, color=look["color"], linewidth=1.4, alpha=0.6)
            axes.plot(line.y, y, label=line.label, **look)
        axes.set_yticks(range(len(rows)), rows)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        _percent(axes.xaxis)
        axes.grid(visible=False, axis="y")
        _legend(axes, 3)

    alt = "; ".join(
        f"{line.label}, {row}: {words.percent(value)}"
        for line in shown
        for row, value in zip(line.x, line.y, strict=True)
    )
    return drawn(name, title, caption, f"{title}. {alt}", draw, height)


# The plots of a run ------------------------------------------------------------------------------


def _by_method(greedy: Sequence[Json]) -> dict[str, list[Json]]:
    return text.grouped(sorted(greedy, key=lambda e: e["iteration"]), lambda e: e["method"])


def by_turn(name: str, greedy: Sequence[Json]) -> Plot:
    """Accuracy after each turn: the base and each method's last generator."""
    last = [evaluations[-1] for evaluations in _by_method(greedy).values()]
    shown = [
        Line(
            words.generator(e),
            np.arange(1, e["turns"] + 1) + offset,
            e["per_turn"],
            look(e["method"]),
            [wilson(a, e["problems"]) for a in e["per_turn"]],
        )
        for e, offset in zip(last, _spread(len(last), 0.24), strict=True)
    ]
    solved = f"solved of {greedy[0]['problems']} problems"
    caption = f"Greedy conversations, {solved}; whiskers are 95 % intervals."
    return lines(f"{name}-by-turn", "Accuracy by turn", caption, shown, "stopped after turn")


def by_iteration(name: str, greedy: Sequence[Json]) -> Plot:
    """Accuracy after the last turn by iteration: every method starts from the base."""
    methods = _by_method(greedy)
    base = methods.pop("base", [])
    shown = [
        Line(
            words.METHODS.get(method, method),
            [*[0] * len(base), *(e["iteration"] + offset for e in trained)],
            [e["accuracy"] for e in (*base, *trained)],
            look(method),
            [e["ci95"] for e in trained],
        )
        for (method, trained), offset in zip(
            methods.items(), _spread(len(methods), 0.24), strict=True
        )
    ]
    point = look("base") | {"zorder": 3, "linestyle": "none"}
    shown += [Line("base", [0], [e["accuracy"]], point, [e["ci95"]]) for e in base]
    caption = (
        f"Greedy, solved of {greedy[0]['problems']} problems after the last turn; iteration 0 is "
        "the base. Whiskers are 95 % intervals."
    )
    return lines(f"{name}-by-iteration", "Accuracy by iteration", caption, shown, "iteration")


def by_choice(name: str, searched: Sequence[Json]) -> Plot:
    """Best-of-N accuracy by how the candidate is chosen, for each generator."""
    n = searched[0]["n"]
    choices = words.ways({e["search"] for e in searched})
    shown = [
        Line(
            generator,
            [e["search"] for e in searches],
            [e["accuracy"] for e in searches],
            look(searches[0]["method"]),
            [e["ci95"] for e in searches],
        )
        for generator, searches in text.grouped(searched, words.generator).items()
    ]
    solved = f"solved of {searched[0]['problems']} problems"
    caption = f"Multi-turn Best-of-{n}: {solved} by how one of {n} candidates is chosen."
    return forest(f"{name}-by-choice", f"Best-of-{n} by choice", caption, choices, shown)


def by_n(name: str, searched: Sequence[Json]) -> Plot:
    """Multi-turn Best-of-N accuracy by N, where an experiment searched with several."""
    ordered = sorted(searched, key=lambda e: e["n"])
    curves = text.grouped(ordered, lambda e: (words.generator(e), e["search"]))
    generators = list(dict.fromkeys(generator for generator, _ in curves))
    styles = ("-", "--", ":", *["-."] * len(generators))
    shown = [
        Line(
            f"{generator}, {choice}",
            [e["n"] for e in searches],
            [e["accuracy"] for e in searches],
            look(choice) | {"linestyle": styles[generators.index(generator)]},
        )
        for (generator, choice), searches in curves.items()
    ]
    solved = f"solved of {searched[0]['problems']} problems"
    caption = f"Multi-turn Best-of-N: {solved} by the number of candidates a turn."
    label = "N, candidates a turn"
    return lines(f"{name}-by-n", "Best-of-N by N", caption, shown, label, height=3.8)


def first_turn_by_n(name: str, searched: stages.Searched) -> Plot | None:
    """What the choice among the first k of N candidates is worth, in the first turn alone."""
    n = len(searched.first_turns[0][1]) if searched.first_turns else 0
    if n < 2:
        return None
    shown = []
    for choice in words.CHOICES:
        curves = [stages.best_of_k(*turn, choice) for turn in searched.first_turns]
        if all(curve is not None for curve in curves):
            shown.append(Line(choice, range(1, n + 1), np.mean(curves, axis=0), look(choice)))
    caption = (
        f"Correct choices of {len(searched.first_turns)} first turns: exact mean over choices of "
        f"k from the {n} candidates drawn."
    )
    title = f"First turn by candidates: {searched.generator}"
    return lines(f"{name}-first-turn", title, caption, shown, "candidates", 3, 3.1)


def reliability_bins(
    scores: np.ndarray, correct: np.ndarray, bins: int = 10
) -> list[tuple[float, float, int]]:
    """(mean predicted probability, fraction correct, size) of equally large groups by score."""
    order = np.argsort(scores, kind="stable")
    probability, right = metrics.probability(scores)[order], correct[order]
    parts = np.array_split(np.arange(len(order)), min(bins, len(order)))
    return [(float(probability[p].mean()), float(right[p].mean()), len(p)) for p in parts]


def reliability(name: str, searched: Sequence[stages.Searched]) -> Plot:
    """Predicted against observed correctness of each generator's verifier."""
    curves = []
    for s in searched:
        predicted, observed, sizes = zip(*reliability_bins(s.scores, s.correct), strict=True)
        intervals = list(map(wilson, observed, sizes))
        curves.append(Line(s.generator, predicted, observed, look(s.method), intervals))

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=_MUTED, linestyle=":", linewidth=1.2, label="perfect")
        for line in curves:
            _draw_line(axes, line)
        axes.set_xlabel("predicted probability (sigmoid of the score)")
        axes.set_ylabel("correct")
        axes.set_xlim(-0.02, 1.02)
        axes.set_ylim(-0.02, 1.02)
        _percent(axes.xaxis)
        _percent(axes.yaxis)
        _legend(axes, 3)

    alt = "Reliability of the verifiers. " + "; ".join(
        f"{line.label}: "
        + ", ".join(
            f"predicted {words.percent(x)}, correct {words.percent(y)}"
            for x, y in zip(line.x, line.y, strict=True)
        )
        for line in curves
    )
    counts = ", ".join(f"{words.count(len(s.scores))} of {s.generator}" for s in searched)
    caption = f"Held-out problems' sampled candidates in ten groups by score: {counts}."
    return drawn(f"{name}-reliability", "Verifier reliability", caption, alt, draw, 3.5)


def scores(name: str, searched: stages.Searched) -> Plot:
    """Histogram of a verifier's scores, correct and incorrect candidates apart."""
    edges = np.histogram_bin_edges(searched.scores, 30)
    parts = {
        "correct": (searched.scores[searched.correct], look("mucode")["color"]),
        "incorrect": (searched.scores[~searched.correct], look("star")["color"]),
    }

    def draw(axes: Axes) -> None:
        for label, (values, colour) in parts.items():
            axes.hist(values, edges, color=colour, alpha=0.35, histtype="stepfilled")
            axes.hist(values, edges, color=colour, histtype="step", linewidth=1.6, label=label)
        axes.set_xlabel("score")
        axes.set_ylabel("candidates")
        axes.grid(visible=False, axis="x")
        _legend(axes, 2)

    alt = f"Scores of {searched.generator}'s candidates. " + "; ".join(
        f"{len(values)} {label} ones, median {np.median(values):.2f}"
        for label, (values, _) in parts.items()
        if len(values)
    )
    caption = "The verifier's scores of all sampled candidates, by what execution said."
    return drawn(f"{name}-scores", f"Scores: {searched.generator}", caption, alt, draw)
