"""report.html: one self-contained page, from results.json and the run's stages."""

from __future__ import annotations

import json
import pathlib
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import jinja2
import numpy as np
from flax import traverse_util
from markupsafe import Markup

from mucode_jax.report import differences as paired
from mucode_jax.report import evidence, plots, stages, talks, text, words
from mucode_jax.report.talks import Conversation
from mucode_jax.report.text import Rows
from mucode_jax.rollouts import intervals

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


# What all pages share ----------------------------------------------------------------------------


def printable(value: Any) -> Any:
    """Text without control characters and lone surrogates; anything else as it is."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return value

    def picture(match: re.Match) -> str:
        code = ord(match[0])
        return chr(0x2400 + code) if code < 0x20 else "\ufffd"

    return _CONTROL.sub(picture, value.replace("\r\n", "\n").replace("\r", "\u240d"))


def _entry(cell: str) -> Markup:
    """A table's cell; an interval or an explanation after the value is set smaller."""
    value, separator, rest = cell.partition(": " if ": " in cell else " (")
    if not separator:
        return Markup.escape(printable(cell))
    smaller = rest if separator == ": " else f"({rest}"
    return Markup("{} <small>{}</small>").format(printable(value), printable(smaller))


def fill(template: str, title: str, lead: str, config: Json, **values: Any) -> str:
    """A page by one of the report's templates. `lead` stands below the title; None: no config."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mucode_jax.report", "."),
        autoescape=True,
        finalize=printable,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"markup": Markup, "entry": _entry}
    return environment.get_template(template).render(
        title=title.replace(" %", "\u00a0%"),  # on one line
        lead=lead.replace(" %", "\u00a0%"),
        config="" if config is None else json.dumps(config, indent=2, ensure_ascii=False),
        **values,
    )


def headline(last: Json, base: Json | None, seeds: str = "") -> tuple[str, str]:
    """The title and the first sentence on a greedy accuracy, and its base's where there is one."""
    title = f"{words.generator(last)} solves {words.percent(last['accuracy'])}"
    if base is not None:
        title += f", its base {words.percent(base['accuracy'])}"
    return title, (
        f"of {last['problems']} held-out problems, in greedy conversations of at most "
        f"{last['turns']} turns{seeds}."
    )


def difference(points: float, interval: Sequence[float], pairs: str) -> str:
    """The second sentence; `pairs` says over what the difference is paired."""
    low, high = map(words.signed, interval)
    return (
        f"The difference is {words.signed(points)} points (95 % interval {low} to {high}, paired "
        f"over {pairs})."
    )


# The page of a run -------------------------------------------------------------------------------


def render(directory: pathlib.Path, results: Json) -> str:
    """The page. It names the curves and conversations whose stages are not in `directory`."""
    groups = text.groups(results["evaluations"])
    calibrated = any(v["loss"] == "bce" for v in results["verifiers"])
    shown = [_group(str(i), directory, group, calibrated) for i, group in enumerate(groups)]
    missing, compared = _compared(directory, results)
    for group in shown:
        group["differences"] = _differences(compared, group["first"])
    title, lead = _headline(directory, groups[0]) if groups else ("Nothing was evaluated", "")
    places = dict.fromkeys(f"{group[0]['benchmark']}, {group[0]['split']}" for group in groups)
    talks_of, conversations = _conversations(directory, results)
    isolation = traverse_util.flatten_dict(results["isolation"], sep=".")
    return fill(
        "page.html.jinja",
        title,
        lead,
        results["config"],
        about=" · ".join(["Report of a run", *places]),
        facts=_facts(results),
        groups=shown,
        no_differences=missing,
        corrected=paired.note(compared),
        verifiers=text.verifier_rows(results["verifiers"]) if results["verifiers"] else [],
        verifiers_by_turn=text.verifier_turn_rows(results["evaluations"]),
        held_out=text.HELD_OUT,
        by_turn=text.BY_TURN,
        verifier_plots=[plot for group in shown for plot in group["verifiers"]],
        budgets=_budgets(results.get("budgets", [])),  # runs of earlier versions have none
        work=_work(results["stages"]),
        sampling=_sampling(results["stages"]),
        stages=_stages(results["stages"]),
        costs=_costs(results["evaluations"]),
        talks_of=talks_of,
        talks=list(zip(_classes(conversations), conversations, strict=True)),
        filters=_filters(conversations),
        isolation={
            _ISOLATION.get(name, name): value if isinstance(value, str) else json.dumps(value)
            for name, value in isolation.items()
        },
        versions=results["versions"],
    )


def _last_and_base(group: Sequence[Json]) -> tuple[Json | None, Json | None]:
    """The greedy evaluations that the page is about: μCode's last, else the last method's; and the
    base's, where that is another."""
    greedy, _ = text.apart(group)
    if not greedy:
        return None, None
    method = "mucode" if any(e["method"] == "mucode" for e in greedy) else greedy[-1]["method"]
    last = max((e for e in greedy if e["method"] == method), key=lambda e: e["iteration"])
    base = next((e for e in greedy if e["method"] == "base"), None)
    return last, None if base is last else base


def _headline(directory: pathlib.Path, group: Sequence[Json]) -> tuple[str, str]:
    """The title and the sentences below it."""
    last, base = _last_and_base(group)
    title, sentences = "Best-of-N searches", []
    if last is not None:
        title, first = headline(last, base)
        sentences.append(first)
        if base is not None:
            sentences.append(_difference(directory, last, base))
    best = [e for e in group if e["search"] == "pt+lv"] or [e for e in group if e["search"] == "pt"]
    if best:
        which = ", ".join(f"{words.generator(e)} {words.percent(e['accuracy'])}" for e in best)
        way = f"Best-of-{best[0]['n']} by {best[0]['search']}"
        sentences.append(f"Multi-turn {way}: {which}, of {best[0]['problems']} problems.")
    return title, " ".join(sentences)


def _difference(directory: pathlib.Path, last: Json, base: Json) -> str:
    points = last["accuracy"] - base["accuracy"]
    a, b = (stages.solved(directory, [e]).get("greedy", {}) for e in (last, base))
    if not a or a.keys() != b.keys():
        return f"The difference is {words.signed(points)} points."
    estimate = intervals.crossed(np.array([a[task][-1] - b[task][-1] for task in sorted(a)]))
    return difference(points, estimate.interval(), "problems")


def _compared(directory: pathlib.Path, results: Json) -> tuple[str, list[Json]]:
    """Why there are no paired differences within a run, "" where there are; and the differences."""
    try:
        return "", evidence.compared({"": [directory]}, {directory: results})["differences"]
    except evidence.MissingStages as error:
        return f"No paired differences: {error}.", []


def _differences(compared: Sequence[Json], first: Json) -> list[tuple[str, str, Rows]]:
    """(title, how all of its rows were searched, rows) of the tables of the place of `first`."""
    place = {name: first[name] for name in ("benchmark", "split", "protocol")}
    tables = paired.tables([d for d in compared if d.items() >= place.items()])
    return [(title, *paired.without_constant(rows)) for title, rows in tables.items()]


def _facts(results: Json) -> dict[str, str]:
    return {
        "backend": results["backend"],
        "sandbox isolation": results["isolation"]["level"],
        "seed": str(results["seed"]),
        "time in stages": words.duration(results["wall_seconds"]),
        "tokens sampled": words.count(sum(s["tokens"] for s in results["stages"])),
        "programs executed": words.count(sum(s["executions"] for s in results["stages"])),
    }


def _group(
    name: str, directory: pathlib.Path, group: Sequence[Json], calibrated: bool
) -> dict[str, Any]:
    """Tables and plots of one of the groups: of its evaluations, and of its verifiers.

    `calibrated`: the verifiers' scores predict probabilities (they were trained by cross-entropy).
    """
    greedy, by_n = text.apart(group)
    searchers = {words.folder(e): e for e in group if e["search"] != "greedy"}
    searched = [stages.searched(directory, e) for e in searchers.values()]
    shown: list[plots.Plot | None] = []
    if greedy:
        shown.append(plots.by_turn(name, greedy))
        if any(e["iteration"] for e in greedy):
            shown.append(plots.by_iteration(name, greedy))
    shown += [plots.by_choice(f"{name}-{n}", searches) for n, searches in by_n.items()]
    if len(by_n) > 1:
        shown.append(plots.by_n(name, [e for searches in by_n.values() for e in searches]))
    shown += [plots.first_turn_by_n(f"{name}-{i}", s) for i, s in enumerate(searched)]
    scored = [s for s in searched if len(s.scores)]
    verifiers = [plots.scores(f"{name}-{i}", s) for i, s in enumerate(scored)]
    if scored and calibrated:
        verifiers.insert(0, plots.reliability(name, scored))
    return {
        "first": group[0],
        "protocol": words.PROTOCOLS[group[0]["protocol"]],
        "tables": text.tables(group),
        "plots": [plot for plot in shown if plot is not None],
        "verifiers": verifiers,
        "passed_wrong": text.passed_wrong_rows(group),
        "repairs": text.repair_rows(greedy),
    }


def _budgets(budgets: Sequence[Json]) -> Rows:
    """A row per generator: completions of training problems that were drawn, and at most."""
    return [["", "completions drawn", "at most"]] + [
        [words.generator(b), words.count(b["drawn"]), words.count(b["most"])] for b in budgets
    ]


def _work(stages: Sequence[Json]) -> Rows:
    """A row per kind of work: seconds, tokens, executions."""
    return [["", "time", "tokens sampled", "programs executed"]] + [
        [work, *_cost(costs)] for work, costs in text.by_work(stages).items()
    ]


def _cost(counts: Json) -> list[str]:
    return [words.duration(counts["seconds"]), *_counts(counts["tokens"], counts["executions"])]


def _counts(*numbers: float) -> list[str]:
    return [words.count(n) if n else "–" for n in numbers]


def _sampling(stages: Sequence[Json]) -> Rows:
    """A row per stage that sampled: what the sampler's device did."""
    head = ["stage", "prompt tokens read", "tokens drawn", "places wasted", "slots in use"]
    return [[*head, "tokens a second", "device idle"]] + [
        [
            stage["name"],
            *_counts(did["prefilled"], did["decoded"], did["wasted"]),
            f"{did['occupancy']:.0%} of {words.count(did['decoded'] / (did['occupancy'] or 1))}",
            words.count(round(did["tokens_per_second"])),
            f"{did['idle_seconds'] / max(did['seconds'], 1e-9):.1%} of "
            f"{words.duration(did['seconds'])}",
        ]
        for stage in stages
        if (did := stage.get("sampling"))
    ]


def _stages(stages: Sequence[Json]) -> Rows:
    """A row per stage: its cost, and what else it counted."""
    shown = {"name", "iteration", "seconds", "tokens", "executions", "sampling"}
    return [["stage", "time", "tokens sampled", "programs executed", "counted"]] + [
        [
            stage["name"],
            *_cost(stage),
            ", ".join(
                f"{name} {words.count(value) if isinstance(value, int) else value}"
                for name, value in stage.items()
                if name not in shown and not isinstance(value, list)
            ),
        ]
        for stage in stages
    ]


def _costs(evaluations: Sequence[Json]) -> Rows:
    """A row per evaluation: what solving a problem this way costs."""
    return [["", "solved", "tokens a problem", "programs executed a problem"]] + [
        [
            words.evaluation(e),
            f"{words.percent(e['accuracy'])} of {e['problems']}",
            f"{e['tokens'] / (e['problems'] * e['searches']):.1f}",
            f"{e['executions'] / (e['problems'] * e['searches']):.2f}",
        ]
        for e in evaluations
    ]


def _conversations(directory: pathlib.Path, results: Json) -> tuple[str, list[Conversation]]:
    """Where the sample conversations are from, in words, and the conversations."""
    group = next(iter(text.groups(results["evaluations"])), [])
    last, base = _last_and_base(group)
    if last is None:
        return "Nothing was evaluated greedily.", []
    greedy = [last] if base is None else [last, base]
    # Of the ways to search, the one that shows best what the verifier is worth.
    by_way = text.grouped(group, lambda e: e["search"])
    searches = next((by_way[way] for way in ("lv", "pt+lv", "pt") if way in by_way), [])
    texts = stages.texts(directory, results)
    shown: list[Conversation] = []
    for evaluations in (greedy, searches):
        for e in evaluations:
            sample = talks.sample(directory, e, _CONVERSATIONS // len(evaluations), texts)
            if not sample and e in greedy:
                name = words.generator(e)
                return f"The conversations of {name} are not in the work directory.", []
            shown += sample
    counts = Counter(talk.writer for talk in shown)
    about = f"{len(shown)} conversations, chosen so that every kind is among them: "
    about += "; ".join(f"{count} of {writer}" for writer, count in counts.items())
    if texts is None:
        about += "; the tokenizer is not at hand, so the problems' texts are not shown"
    return f"{about}.", shown


def _classes(conversations: Sequence[Conversation]) -> list[str]:
    """Each conversation's classes, by which the filters find it."""
    writers = list(dict.fromkeys(talk.writer for talk in conversations))
    return [
        f"at-{talk.solved} by-{writers.index(talk.writer)}{' misled' if talk.misled else ''}"
        for talk in conversations
    ]


def _filters(conversations: Sequence[Conversation]) -> dict[str, list[tuple[str, str, int]]]:
    """Legend -> [(class, words, number)] of each row of filters."""
    solved = Counter(talk.solved for talk in conversations)
    turns = [(f"at-{t}", f"solved at turn {t}", solved[t]) for t in sorted(solved) if t]
    never = [("at-0", "never solved", solved[0])] if solved[0] else []
    writers = Counter(talk.writer for talk in conversations)
    by = [(f"by-{i}", writer, count) for i, (writer, count) in enumerate(writers.items())]
    rows = {"Show": [*turns, *never], "Written by": by}
    filters = {legend: choices for legend, choices in rows.items() if len(choices) > 1}
    if misled := sum(talk.misled for talk in conversations):
        filters["Verifier"] = [("misled", "preferred a wrong candidate", misled)]
    return filters
