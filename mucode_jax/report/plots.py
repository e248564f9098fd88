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
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from mucode_jax.report import stages, text, words
from mucode_jax.rollouts.evaluate import wilson
from mucode_jax.training import metrics

Json = Any

# Stand-ins; each must be a colour that nothing else is drawn in.
_INK, _MUTED, _RULE, _PAPER = "#010101", "#010102", "#010103", "#010104"
_METHOD = {m: (f"#02020{i}", "oDs^v<P"[i]) for i, m in enumerate(words.METHODS)}
_CHOICE = {c: (f"#03030{i}", "osD^vP*"[i]) for i, c in enumerate(words.CHOICES)}
_VARIABLES = {
    _INK: "ink",
    _MUTED: "muted",
    _RULE: "rule",
    _PAPER: "paper",
    **{colour: f"m-{method}" for method, (colour, _) in _METHOD.items()},
    **{colour: f"c-{choice.replace('+', '-')}" for choice, (colour, _) in _CHOICE.items()},
}
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
    """A drawing: its name (unique in a page), heading, caption, text alternative and SVG."""

    name: str
    title: str
    caption: str
    alt: str
    svg: str


def drawn(
    name: str,
    title: str,
    caption: str,
    alt: str,
    draw: Callable[[Figure], None],
    height: float = 3.1,
) -> Plot:
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(4.6, height), layout="constrained")
        draw(figure)
        out = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(out, format="svg", metadata=nothing)
    return Plot(name, title, caption, alt, inline(out.getvalue(), name, alt))


def inline(svg: str, name: str, alt: str) -> str:
    """matplotlib's SVG file as an element of a page.

    Without prologue, namespaces (the page's parser knows them) and metadata; ids are made unique by
    `name`; colours become the page's; `alt` is what a screen reader says.
    """
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg)
    svg = svg.replace("xlink:href", "href")
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'href="#', f'href="#{name}-', svg)
    svg = svg.replace("url(#", f"url(#{name}-")
    svg = re.sub(r"font: [^;\"]*?([\d.]+px)[^;\"]*", r"font-size: \1", svg)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var(--{variable})")
    said = alt.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return svg.replace("<svg", f'<svg role="img" aria-label="{said}"', 1).strip()


def _percent_axis(axis: Any, low: float, high: float) -> None:
    margin = max(0.02, 0.06 * (high - low))
    axis.axes.set_ylim(max(0.0, low - margin), min(1.0, high + margin))
    axis.set_major_formatter(PercentFormatter(1.0, decimals=0))


def legend(figure: Figure, axes: Axes, columns: int = 2) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, handlelength=1.6)


def series(i: int) -> dict[str, Any]:
    """How the i-th of several lines that stand for no method or choice of their own is drawn."""
    looks = [*_METHOD.values()][:0:-1]  # μCode's first, never the base's
    colour, marker = looks[i % len(looks)]
    style = ("-", "--", ":", "-.")[i // len(looks) % 4]
    return {"color": colour, "marker": marker, "linestyle": style}


def look(of: str) -> dict[str, Any]:
    """How the line of a method or of a way to choose is drawn."""
    colour, marker = (_METHOD | _CHOICE).get(of, (_INK, "o"))
    return {"color": colour, "marker": marker}


def _line(axes: Axes, x: np.ndarray, y: Sequence[float], about: tuple, label: str, **kw) -> None:
    colour, marker = about
    axes.plot(x, y, color=colour, marker=marker, label=label, **kw)


def _whiskers(axes: Axes, x: np.ndarray, intervals: Sequence[Sequence[float]], about: tuple):
    low, high = zip(*intervals, strict=True)
    axes.vlines(x, low, high, color=about[0], linewidth=1, alpha=0.55)


def _by_method(greedy: Sequence[Json]) -> dict[str, list[Json]]:
    found: dict[str, list[Json]] = {}
    for e in greedy:
        found.setdefault(e["method"], []).append(e)
    return {m: sorted(es, key=lambda e: e["iteration"]) for m, es in found.items()}


def _spread(count: int, width: float) -> np.ndarray:
    """Offsets that keep the whiskers of `count` lines apart."""
    return (np.arange(count) - (count - 1) / 2) * (width / max(count, 1))


def by_turn(name: str, greedy: Sequence[Json]) -> Plot:
    """Accuracy after each turn: the base and each method's last generator."""
    last = [of[-1] for of in _by_method(greedy).values()]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        bounds = []
        for e, offset in zip(last, _spread(len(last), 0.24), strict=True):
            about = _METHOD.get(e["method"], (_INK, "o"))
            x = np.arange(1, len(e["per_turn"]) + 1) + offset
            intervals = [wilson(a, e["problems"]) for a in e["per_turn"]]
            _whiskers(axes, x, intervals, about)
            _line(axes, x, e["per_turn"], about, words.generator(e))
            bounds += [b for interval in intervals for b in interval]
        axes.set_xlabel("stopped after turn")
        axes.set_xticks(range(1, max(len(e["per_turn"]) for e in last) + 1))
        axes.grid(visible=False, axis="x")
        _percent_axis(axes.yaxis, min(bounds), max(bounds))
        legend(figure, axes)

    alt = "Accuracy after each turn. " + "; ".join(
        f"{words.generator(e)}: " + ", ".join(words.percent(a) for a in e["per_turn"]) for e in last
    )
    caption = "Greedy conversations, solved problems; whiskers are 95 % intervals."
    return drawn(f"{name}-by-turn", "Accuracy by turn", caption, alt, draw, 3.5)


def by_iteration(name: str, greedy: Sequence[Json]) -> Plot:
    """Accuracy after the last turn by iteration: every method starts from the base."""
    methods = _by_method(greedy)
    base = methods.pop("base", [])
    series = {m: base + es for m, es in methods.items()}

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        offsets = _spread(len(series), 0.24)
        for (method, es), offset in zip(series.items(), offsets, strict=True):
            about = _METHOD.get(method, (_INK, "o"))
            x = np.array([e["iteration"] + (offset if e["iteration"] else 0) for e in es])
            own = slice(len(base), None)
            _whiskers(axes, x[own], [e["ci95"] for e in es[own]], about)
            _line(axes, x, [e["accuracy"] for e in es], about, words.METHODS.get(method, method))
        for e in base:
            about = _METHOD["base"]
            _whiskers(axes, np.zeros(1), [e["ci95"]], about)
            _line(axes, np.zeros(1), [e["accuracy"]], about, "base", zorder=3, linestyle="none")
        bounds = [bound for es in series.values() for e in es for bound in e["ci95"]]
        axes.set_xlabel("iteration")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(visible=False, axis="x")
        _percent_axis(axes.yaxis, min(bounds), max(bounds))
        legend(figure, axes)

    alt = "Accuracy after the last turn by iteration. " + "; ".join(
        f"{words.METHODS.get(m, m)}: "
        + ", ".join(f"{words.percent(e['accuracy'])} at {e['iteration']}" for e in es)
        for m, es in series.items()
    )
    caption = "Greedy, after the last turn; iteration 0 is the base. Whiskers are 95 % intervals."
    return drawn(f"{name}-by-iteration", "Accuracy by iteration", caption, alt, draw, 3.5)


def by_choice(name: str, searched: Sequence[Json]) -> Plot:
    """Best-of-N accuracy by how the candidate is chosen, for each generator."""
    present = {e["search"] for e in searched}
    choices = words.ways(present)
    generators = list(dict.fromkeys(words.generator(e) for e in searched))

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for g, offset in zip(generators, _spread(len(generators), 0.4), strict=True):
            own = [e for e in searched if words.generator(e) == g]
            colour, marker = _METHOD.get(own[0]["method"], (_INK, "o"))
            y = np.array([choices.index(e["search"]) for e in own]) + offset
            low, high = zip(*(e["ci95"] for e in own), strict=True)
            axes.hlines(y, low, high, color=colour, linewidth=1.4, alpha=0.6)
            axes.plot([e["accuracy"] for e in own], y, marker, color=colour, markersize=6, label=g)
        axes.set_yticks(range(len(choices)), choices)
        axes.set_ylim(len(choices) - 0.4, -0.6)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.grid(visible=False, axis="y")
        legend(figure, axes, 3)

    alt = "Best-of-N accuracy by choice. " + "; ".join(
        f"{words.generator(e)}, {e['search']}: {words.percent(e['accuracy'])}" for e in searched
    )
    n = searched[0]["n"]
    caption = f"Multi-turn Best-of-{n}: solved problems by how one of {n} candidates is chosen."
    return drawn(f"{name}-by-choice", f"Best-of-{n} by choice", caption, alt, draw)


def by_n(name: str, searched: Sequence[Json]) -> Plot:
    """Multi-turn Best-of-N accuracy by N, where an experiment searched with several."""
    series: dict[tuple[str, str], list[Json]] = {}
    for e in sorted(searched, key=lambda e: e["n"]):
        series.setdefault((words.generator(e), e["search"]), []).append(e)
    alt = "Best-of-N accuracy by N. " + "; ".join(
        f"{g}, {choice}: " + ", ".join(f"{words.percent(e['accuracy'])} at {e['n']}" for e in es)
        for (g, choice), es in series.items()
    )

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        styles = dict(zip(dict.fromkeys(g for g, _ in series), ("-", "--", ":"), strict=False))
        for (g, choice), es in series.items():
            x = np.array([e["n"] for e in es])
            y = [e["accuracy"] for e in es]
            _line(
                axes,
                x,
                y,
                _CHOICE.get(choice, (_INK, "x")),
                f"{g}, {choice}",
                linestyle=styles.get(g, "-."),
            )
        axes.set_xlabel("N, candidates a turn")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        legend(figure, axes)

    caption = "Multi-turn Best-of-N: solved problems by the number of candidates a turn."
    return drawn(f"{name}-by-n", "Best-of-N by N", caption, alt, draw, 3.8)


def first_turn_by_n(name: str, found: stages.Searched) -> Plot | None:
    """What the choice among the first k of N candidates is worth, in the first turn alone."""
    curves = {}
    for choice in words.CHOICES:
        each = [stages.best_of_k(turn, choice) for turn in found.first_turns]
        if each and all(curve is not None for curve in each):
            curves[choice] = np.mean(each, axis=0)
    n = len(found.first_turns[0].correct) if found.first_turns else 0
    if n < 2:
        return None

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for choice, curve in curves.items():
            _line(axes, np.arange(1, n + 1), curve, _CHOICE[choice], choice)
        axes.set_xlabel("candidates")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        reached = np.concatenate(list(curves.values()))
        _percent_axis(axes.yaxis, reached.min(), reached.max())
        legend(figure, axes, 5)

    alt = f"First-turn accuracy of {found.generator} by number of candidates. " + "; ".join(
        f"{choice}: " + ", ".join(words.percent(a) for a in curve)
        for choice, curve in curves.items()
    )
    caption = f"First turn only: exact mean over all choices of k from the {n} candidates drawn."
    return drawn(
        f"{name}-first-turn", f"First turn by candidates: {found.generator}", caption, alt, draw
    )


def reliability_bins(
    scores: np.ndarray, correct: np.ndarray, bins: int = 10
) -> list[tuple[float, float, int]]:
    """(mean predicted probability, fraction correct, size) of equally large groups by score."""
    order = np.argsort(scores, kind="stable")
    probability, right = metrics.probability(scores)[order], correct[order]
    parts = np.array_split(np.arange(len(order)), min(bins, len(order)))
    return [(float(probability[p].mean()), float(right[p].mean()), len(p)) for p in parts]


def reliability(name: str, found: Sequence[stages.Searched]) -> Plot:
    """Predicted against observed correctness of each generator's verifier."""
    curves = [(s, reliability_bins(s.scores, s.correct)) for s in found]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color=_MUTED, linestyle=":", linewidth=1.2, label="perfect")
        for s, bins in curves:
            predicted, observed, sizes = zip(*bins, strict=True)
            intervals = [wilson(f, n) for f, n in zip(observed, sizes, strict=True)]
            about = _METHOD.get(s.method, (_INK, "o"))
            _whiskers(axes, np.array(predicted), intervals, about)
            _line(axes, np.array(predicted), observed, about, s.generator)
        axes.set_xlabel("predicted probability (sigmoid of the score)")
        axes.set_ylabel("correct")
        axes.set_xlim(-0.02, 1.02)
        axes.set_ylim(-0.02, 1.02)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        legend(figure, axes, 3)

    alt = "Reliability of the verifiers. " + "; ".join(
        f"{s.generator}: "
        + ", ".join(f"predicted {words.percent(p)}, correct {words.percent(f)}" for p, f, _ in bins)
        for s, bins in curves
    )
    caption = (
        "Held-out problems' sampled candidates in ten groups by score. Bradley-Terry fixes "
        "differences of scores within a problem, not their level."
    )
    return drawn(f"{name}-reliability", "Verifier reliability", caption, alt, draw, 3.5)


def scores(name: str, found: stages.Searched) -> Plot:
    """Histogram of a verifier's scores, correct and incorrect candidates apart."""
    edges = np.histogram_bin_edges(found.scores, 30)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for right, colour, label in (
            (True, _METHOD["mucode"][0], "correct"),
            (False, _METHOD["star"][0], "incorrect"),
        ):
            own = found.scores[found.correct == right]
            axes.hist(own, edges, color=colour, alpha=0.35, histtype="stepfilled")
            axes.hist(own, edges, color=colour, histtype="step", linewidth=1.6, label=label)
        axes.set_xlabel("score")
        axes.set_ylabel("candidates")
        axes.grid(visible=False, axis="x")
        legend(figure, axes)

    right, wrong = found.scores[found.correct], found.scores[~found.correct]
    alt = f"Scores of {found.generator}'s candidates. " + "; ".join(
        f"{len(s)} {label} ones, median {np.median(s):.2f}"
        for s, label in ((right, "correct"), (wrong, "incorrect"))
        if len(s)
    )
    caption = "The verifier's scores of all sampled candidates, by what execution said."
    return drawn(f"{name}-scores", f"Scores: {found.generator}", caption, alt, draw)


def time(name: str, results: Json) -> Plot:
    """Seconds by what was done."""
    seconds = text.seconds_by_work(results["stages"])

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        bars = axes.barh(list(seconds), list(seconds.values()), color=_METHOD["mucode"][0])
        axes.bar_label(bars, [words.duration(s) for s in seconds.values()], padding=4)
        axes.invert_yaxis()
        axes.set_xlim(0, max(seconds.values()) * 1.28)
        axes.set_xticks([])
        axes.spines["bottom"].set_visible(False)
        axes.grid(visible=False)

    alt = "Where the time went. " + ", ".join(
        f"{work}: {words.duration(s)}" for work, s in seconds.items()
    )
    caption = "Seconds of all stages, added up over methods and iterations."
    return drawn(
        f"{name}-time", "Where the time went", caption, alt, draw, 0.6 + 0.3 * len(seconds)
    )
