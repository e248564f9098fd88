"""report.html: one self-contained page, from results.json and the run's stages."""

from __future__ import annotations

import json
import pathlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import jinja2
import numpy as np
from flax import traverse_util
from markupsafe import Markup

from mucode_jax.report import plots, stages, talks, text, words
from mucode_jax.report.talks import Conversation
from mucode_jax.rollouts import evaluate

Json = Any
_CONVERSATIONS = 12  # greedy ones, and as many searches
_ISOLATION = {
    "level": "level reached",
    "accepted": "weakest level accepted",
    "seccomp": "system calls filtered",
    "landlock": "Landlock version",
    "user": "runs as user",
}
# What a page must not contain, and XML cannot: shown as the picture of the control character.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def printable(shown: Any) -> Any:
    """Text without control characters and lone surrogates; anything else as it is."""
    if isinstance(shown, Markup) or not isinstance(shown, str):
        return shown

    def picture(found: re.Match) -> str:
        code = ord(found[0])
        return chr(0x2400 + code) if code < 0x20 else "\ufffd"

    return _CONTROL.sub(picture, shown.replace("\r\n", "\n").replace("\r", "\u240d"))


def _entry(cell: str) -> Markup:
    """A table's cell; an interval or an explanation after the value is set smaller."""
    value, separator, rest = cell.partition(": " if ": " in cell else " (")
    if not separator:
        return Markup.escape(printable(cell))
    shown = rest if separator == ": " else f"({rest}"
    return Markup("{} <small>{}</small>").format(printable(value), printable(shown))


def bound(sentence: str) -> str:
    """Keeps a number and its per cent sign on one line."""
    return sentence.replace(" %", "\u00a0%")


def environment() -> jinja2.Environment:
    """The report's templates."""
    found = jinja2.Environment(
        loader=jinja2.PackageLoader("mucode_jax.report", "."),
        autoescape=True,
        finalize=printable,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {"markup": Markup, "entry": _entry}
    return found


def render(directory: pathlib.Path, results: Json) -> str:
    """The page. Curves and conversations whose stages are not in `directory` are said to be
    missing."""
    groups = text.groups(results["evaluations"])
    searched = [_searched(directory, group) for group in groups]
    talks_of, conversations = _conversations(directory, results)
    return (
        environment()
        .get_template("page.html.jinja")
        .render(
            title=bound(_title(groups[0])) if groups else "Nothing was evaluated",
            said=bound(" ".join(_said(directory, groups[0]))) if groups else "",
            about=_about(groups),
            facts=_facts(results),
            groups=[_group(str(i), group, searched[i]) for i, group in enumerate(groups)],
            verifiers=text.verifier_rows(results) if results["verifiers"] else [],
            verifiers_by_turn=text.verifier_turn_rows(results["evaluations"]),
            by_turn=text.BY_TURN,
            verifier_plots=[
                plot for i, found in enumerate(searched) for plot in _verifier_plots(f"{i}", found)
            ],
            time_plot=plots.time("all", results) if results["stages"] else None,
            work=_work(results),
            sampling=_sampling(results),
            stages=_stages(results),
            costs=_costs(results["evaluations"]),
            talks=[(classes(talk, conversations), talk) for talk in conversations],
            talks_of=talks_of,
            filters=_filters(conversations),
            protocols={p: words.PROTOCOLS[p] for p in sorted({g[0]["protocol"] for g in groups})},
            isolation={
                _ISOLATION.get(name, name): of if isinstance(of, str) else json.dumps(of)
                for name, of in traverse_util.flatten_dict(results["isolation"], sep=".").items()
            },
            versions=results["versions"],
            config=json.dumps(results["config"], indent=2, ensure_ascii=False),
        )
    )


def _last(group: Sequence[Json]) -> Json | None:
    """The greedy evaluation that the page is about: μCode's last, else the last method's."""
    greedy, _ = text.apart(group)
    if not greedy:
        return None
    methods = {e["method"] for e in greedy}
    method = "mucode" if "mucode" in methods else greedy[-1]["method"]
    return max((e for e in greedy if e["method"] == method), key=lambda e: e["iteration"])


def _base(group: Sequence[Json]) -> Json | None:
    return next((e for e in group if e["search"] == "greedy" and e["method"] == "base"), None)


def _title(group: Sequence[Json]) -> str:
    last, base = _last(group), _base(group)
    if last is None:
        return "Best-of-N searches"
    said = f"{words.generator(last)} solves {words.percent(last['accuracy'])}"
    if base is None or base is last:
        return said
    return f"{said}, its base {words.percent(base['accuracy'])}"


def _said(directory: pathlib.Path, group: Sequence[Json]) -> list[str]:
    """The findings in sentences."""
    last, base = _last(group), _base(group)
    sentences = []
    if last is not None:
        sentences.append(
            f"of {last['problems']} held-out problems, in greedy conversations of at most "
            f"{last['turns']} turns."
        )
        if base is not None and base is not last:
            sentences.append(_difference(directory, last, base))
    best = [e for e in group if e["search"] == "pt+lv"] or [e for e in group if e["search"] == "pt"]
    if best:
        which = ", ".join(f"{words.generator(e)} {words.percent(e['accuracy'])}" for e in best)
        sentences.append(f"Multi-turn Best-of-{best[0]['n']} by {best[0]['search']}: {which}.")
    return sentences


def _difference(directory: pathlib.Path, last: Json, base: Json) -> str:
    points = f"{words.signed(last['accuracy'] - base['accuracy'])} points"
    a, b = (stages.solved(directory, [e]).get("greedy") for e in (last, base))
    if not a or not b or a.keys() != b.keys():
        return f"The difference is {points}."
    of_a, of_b = (np.array([solved[task][-1] for task in sorted(a)]) for solved in (a, b))
    _, (low, high), _ = evaluate.paired_difference(of_a, of_b)
    return (
        f"The difference is {points} (95 % interval {words.signed(low)} to {words.signed(high)}, "
        "paired over problems)."
    )


def _about(groups: Sequence[Sequence[Json]]) -> str:
    names = dict.fromkeys(f"{g[0]['benchmark']}, {g[0]['split']}" for g in groups)
    return " · ".join(["Report of a run", *names])


def _facts(results: Json) -> list[tuple[str, str]]:
    stages = results["stages"]
    return [
        ("backend", results["backend"]),
        ("sandbox isolation", results["isolation"]["level"]),
        ("seed", str(results["seed"])),
        ("time in stages", words.duration(results["wall_seconds"])),
        ("tokens sampled", words.count(sum(s["tokens"] for s in stages))),
        ("programs executed", words.count(sum(s["executions"] for s in stages))),
    ]


def _searched(directory: pathlib.Path, group: Sequence[Json]) -> list[stages.Searched]:
    """What the stages say of each generator that was searched."""
    searchers = {words.folder(e): e for e in group if e["search"] != "greedy"}
    found = [stages.searched(directory, e) for e in searchers.values()]
    return [s for s in found if s is not None]


def _group(name: str, group: Sequence[Json], found: Sequence[stages.Searched]) -> dict[str, Any]:
    """Tables and plots of the evaluations of one benchmark by one protocol."""
    greedy, searched = text.apart(group)
    drawn: list[plots.Plot | None] = []
    if greedy:
        drawn.append(plots.by_turn(name, greedy))
        if any(e["iteration"] for e in greedy):
            drawn.append(plots.by_iteration(name, greedy))
    tables = []
    for n, of_n in searched.items():
        tables.append((of_n[0], text.search_rows(of_n)))
        drawn.append(plots.by_choice(f"{name}-{n}", of_n))
    if len(tables) > 1:
        drawn.append(plots.by_n(name, [e for of_n in searched.values() for e in of_n]))
    drawn += [plots.first_turn_by_n(f"{name}-{i}", of) for i, of in enumerate(found)]
    return {
        "about": group[0],
        "greedy": text.greedy_rows(greedy) if greedy else [],
        "searches": tables,
        "plots": [plot for plot in drawn if plot is not None],
    }


def _verifier_plots(name: str, found: Sequence[stages.Searched]) -> Iterator[plots.Plot]:
    scored = [s for s in found if len(s.scores)]
    if not scored:
        return
    yield plots.reliability(name, scored)
    for i, s in enumerate(scored):
        yield plots.scores(f"{name}-{i}", s)


def _work(results: Json) -> list[list[str]]:
    """A head and one row a kind of work: seconds, tokens, executions."""
    sums: dict[str, Counter] = defaultdict(Counter)
    for stage in results["stages"]:
        sums[words.work(stage["name"])].update(
            {k: stage[k] for k in ("seconds", "tokens", "executions")}
        )
    return [["", "time", "tokens sampled", "programs executed"]] + [
        [work, words.duration(of["seconds"]), *_counts(of["tokens"], of["executions"])]
        for work, of in sorted(sums.items(), key=lambda item: -item[1]["seconds"])
    ]


def _sampling(results: Json) -> list[list[str]]:
    """A head and one row a stage that sampled: what the sampler's device did."""
    head = ["stage", "prompt tokens read", "tokens drawn", "places wasted", "slots in use"]
    return [[*head, "tokens a second", "device idle"]] + [
        [
            stage["name"],
            *_counts(of["prefilled"], of["decoded"], of["wasted"]),
            f"{of['occupancy']:.0%}",
            words.count(round(of["tokens_per_second"])),
            f"{of['idle_seconds'] / max(of['seconds'], 1e-9):.1%}",
        ]
        for stage in results["stages"]
        if (of := stage.get("sampling"))
    ]


def _counts(*numbers: float) -> list[str]:
    return [words.count(n) if n else "–" for n in numbers]


def _stages(results: Json) -> list[list[str]]:
    known = ("name", "iteration", "seconds", "tokens", "executions", "sampling")
    rows = [["stage", "time", "tokens sampled", "programs executed", "counted"]]
    for stage in results["stages"]:
        counted = ", ".join(
            f"{k} {words.count(v) if isinstance(v, int) else v}"
            for k, v in stage.items()
            if k not in known
        )
        rows.append(
            [
                stage["name"],
                words.duration(stage["seconds"]),
                *_counts(stage["tokens"], stage["executions"]),
                counted,
            ]
        )
    return rows


def _costs(evaluations: Sequence[Json]) -> list[list[str]]:
    """A head and one row an evaluation: what solving a problem this way costs."""
    rows = [["", "solved", "tokens a problem", "programs executed a problem"]]
    for e in evaluations:
        conversations = e["problems"] * e["searches"]
        rows.append(
            [
                words.evaluation(e),
                words.percent(e["accuracy"]),
                f"{e['tokens'] / conversations:.1f}",
                f"{e['executions'] / conversations:.2f}",
            ]
        )
    return rows


def _conversations(directory: pathlib.Path, results: Json) -> tuple[str, list[Conversation]]:
    """Where the sample conversations are from, in words, and the conversations."""
    groups = text.groups(results["evaluations"])
    last, base = (_last(groups[0]), _base(groups[0])) if groups else (None, None)
    if last is None:
        return "Nothing was evaluated greedily.", []
    both = [last] if base is None or base is last else [last, base]
    reading = stages.texts(directory, results)
    found: list[Conversation] = []
    for e in both:
        greedy = talks.greedy(directory, e, _CONVERSATIONS // len(both), reading)
        if greedy is None:
            return f"The conversations of {words.generator(e)} are not in the work directory.", []
        found += greedy
    # Of the ways to search, the one that shows best what the verifier is worth.
    ways = [e for choice in ("lv", "pt+lv", "pt") for e in groups[0] if e["search"] == choice]
    ways = [e for e in ways if e["search"] == ways[0]["search"]]
    for e in ways:
        found += talks.searched(directory, e, _CONVERSATIONS // len(ways), reading) or []
    counts = Counter(talk.writer for talk in found)
    said = f"{len(found)} conversations, chosen so that every kind is among them: "
    said += "; ".join(f"{count} of {writer}" for writer, count in counts.items())
    if reading is None:
        said += "; the tokenizer is not at hand, so the problems' texts are not shown"
    return f"{said}.", found


def _filters(found: Sequence[Conversation]) -> list[tuple[str, list[tuple[str, str, int]]]]:
    """(legend, [(class, words, number)]) of each row of filters."""
    solved = Counter(talk.solved for talk in found)
    rows = [(f"at-{t}", f"solved at turn {t}", solved[t]) for t in sorted(solved) if t]
    rows += [("at-0", "never solved", solved[0])] if solved[0] else []
    misled = sum(talk.misled for talk in found)
    writers = list(dict.fromkeys(talk.writer for talk in found))
    by = [
        (f"by-{i}", writer, sum(talk.writer == writer for talk in found))
        for i, writer in enumerate(writers)
    ]
    filters = [("Show", rows), ("Written by", by)]
    if misled:
        filters.append(("Verifier", [("misled", "preferred a wrong candidate", misled)]))
    return [(legend, of) for legend, of in filters if len(of) > 1 or legend == "Verifier"]


def classes(talk: Conversation, found: Sequence[Conversation]) -> str:
    """A conversation's classes, by which the filters find it."""
    writers = list(dict.fromkeys(other.writer for other in found))
    misled = " misled" if talk.misled else ""
    return f"at-{talk.solved} by-{writers.index(talk.writer)}{misled}"
