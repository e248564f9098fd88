"""The results as plain text: what a person sees in the terminal at the end of a run."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, TypeVar

from mucode_jax.report import words
from mucode_jax.rollouts.intervals import wilson

Json = Any
Rows = list[list[str]]  # of a table's cells, its head first
T = TypeVar("T")
K = TypeVar("K", bound=Hashable)
WIDTH = 100
MIXED = (
    "“Mixed” counts the problems with correct and incorrect candidates; “AUC within”, “best one "
    "right” and its chance are of these, with 95 % interval; “AUC” ranks across problems"
)
BY_TURN = f"Verifiers, on the candidates of their searches that could be chosen. {MIXED}"
HELD_OUT = f"Verifiers, on problems held out from their training. {MIXED}"


def grid(rows: Sequence[Sequence[str]], width: int = WIDTH) -> str:
    """Rows of cells as aligned columns, the head first.

    The first column is left-aligned, the others right-aligned. Columns that do not fit in `width`
    follow below, with the first column again.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    blocks: list[list[int]] = [[]]
    for c in range(1, len(widths)):
        if blocks[-1] and widths[0] + sum(3 + widths[i] for i in [*blocks[-1], c]) > width:
            blocks.append([])
        blocks[-1].append(c)

    def aligned(row: Sequence[str], block: Sequence[int]) -> str:
        cells = [row[0].ljust(widths[0]), *(row[c].rjust(widths[c]) for c in block)]
        return "   ".join(cells).rstrip()

    return "\n\n".join("\n".join(aligned(row, block) for row in rows) for block in blocks)


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as a Markdown table, the head first."""
    head, *body = rows
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *body]
    return "\n".join("| " + " | ".join(row) + " |" for row in lines)


def grouped(items: Iterable[T], key: Callable[[T], K]) -> dict[K, list[T]]:
    """The items by their key, in the order in which they come."""
    groups: dict[K, list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


def groups(evaluations: Sequence[Json]) -> list[list[Json]]:
    """The evaluations by benchmark, split and protocol: what may stand in one table."""
    by_place = grouped(evaluations, lambda e: (e["benchmark"], e["split"], e["protocol"]))
    return list(by_place.values())


def apart(evaluations: Sequence[Json]) -> tuple[list[Json], dict[int, list[Json]]]:
    """The greedy ones, and the searches by N."""
    greedy = [e for e in evaluations if e["search"] == "greedy"]
    searched = [e for e in evaluations if e["search"] != "greedy"]
    return greedy, grouped(sorted(searched, key=lambda e: e["n"]), lambda e: e["n"])


def table(results: Json) -> str:
    """All results of a run for the terminal: at most 100 columns, no colours."""
    parts = []
    for group in groups(results["evaluations"]):
        parts += section(group, grid)
    if results["verifiers"]:
        verifiers = grid(verifier_rows(results["verifiers"]))
        parts.append(f"{_wrapped(HELD_OUT)}\n\n{verifiers}")
    if len(by_turn := verifier_turn_rows(results["evaluations"])) > 1:
        parts.append(f"{_wrapped(BY_TURN)}\n\n{grid(by_turn)}")
    isolation = results["isolation"]["level"]
    made = f"Backend {results['backend']}; sandbox isolation {isolation}; seed {results['seed']}"
    parts.append(f"{_wrapped(_time_line(results))}\n{_wrapped(made)}")
    return "\n\n".join(parts)


def section(group: Sequence[Json], drawn: Callable[[Rows], str]) -> list[str]:
    """The paragraphs on one of `groups`, its tables drawn by `grid` or `markdown`."""
    first = group[0]
    about = f"% of {first['problems']} problems ({first['benchmark']}, {first['split']})"
    return [
        *(
            f"{solved}\n{about}, {interval}\n\n{drawn(rows)}"
            for solved, interval, rows in tables(group)
        ),
        _wrapped(f"Protocol {first['protocol']}: {words.PROTOCOLS[first['protocol']]}"),
    ]


def tables(group: Sequence[Json]) -> list[tuple[str, str, Rows]]:
    """(what is solved, what is beside it, rows) of one of `groups`: greedy, and searches by N."""
    greedy, searched = apart(group)
    interval = "with 95 % interval"
    by_turn = "Solved by one greedy conversation a problem, had it stopped after that turn"
    shown = [(by_turn, interval, greedy_rows(greedy))] if greedy else []
    for n, searches in searched.items():
        solved = (
            f"Solved by multi-turn Best-of-{n}: {n} candidates a turn, at most "
            f"{searches[0]['turns']} turns, and which candidate is taken"
        )
        repeated = f"{interval}, searches a problem: {searches[0]['searches']}"
        shown.append((solved, repeated, search_rows(searches)))
    return shown


def greedy_rows(greedy: Sequence[Json]) -> Rows:
    """A row per generator: accuracy with its interval after each turn."""
    turns = max(e["turns"] for e in greedy)
    rows = [["", *(f"turn {t + 1}" for t in range(turns))]]
    for e in greedy:
        cells = [words.with_interval(a, wilson(a, e["problems"])) for a in e["per_turn"]]
        rows.append([words.generator(e), *cells, *[""] * (turns - len(cells))])
    return rows


def search_rows(searched: Sequence[Json]) -> Rows:
    """A row per way to choose, a column per generator: accuracy with its interval."""
    names = list(dict.fromkeys(map(words.generator, searched)))
    cells = {
        (e["search"], words.generator(e)): words.with_interval(e["accuracy"], e["ci95"])
        for e in searched
    }
    return [["", *names]] + [
        [words.way(choice), *(cells.get((choice, name), "–") for name in names)]
        for choice in words.ways({e["search"] for e in searched})
    ]


def verifier_rows(verifiers: Sequence[Json]) -> Rows:
    """A row per verifier: how good it is on problems held out from its training."""
    losses = {"bt": "Bradley-Terry", "bce": "cross-entropy"}
    return _with_quality(
        ["rollouts of", "loss", "pairs"],
        [
            ([words.generator(v), losses.get(v["loss"], v["loss"]), words.count(v["pairs"])], v)
            for v in verifiers
        ],
    )


def verifier_turn_rows(evaluations: Sequence[Json]) -> Rows:
    """A row per generator and turn: the verifier on the candidates it could choose among."""
    several = len({e["benchmark"] for e in evaluations}) > 1
    return _with_quality(
        ["", "turn", "candidates"],
        [
            (
                [
                    words.generator(e) + (f" ({e['benchmark']})" if several else ""),
                    str(turn["turn"]),
                    words.count(turn["candidates"]),
                ],
                turn,
            )
            for e in evaluations
            for turn in e.get("verifier", ())
        ],
    )


def _with_quality(head: list[str], measured: Sequence[tuple[list[str], Json]]) -> Rows:
    """Rows that go on with `measures.quality`; Brier scores only where there are any."""
    calibrated = any(quality.get("brier") is not None for _, quality in measured)
    columns = ["mixed", "AUC within", "best one right", "by chance", "AUC"]
    rows = [[*head, *columns, *(["Brier"] if calibrated else [])]]
    for cells, quality in measured:
        get = quality.get
        count = get("mixed")
        rows.append(
            [
                *cells,
                "–" if count is None else words.count(count),
                words.number(get("auc_within"), get("auc_within_ci95")),
                words.percent(get("best_right"), get("best_right_ci95")),
                words.percent(get("best_right_chance")),
                words.number(get("auc")),
                *([words.number(get("brier"))] if calibrated else []),
            ]
        )
    return rows


def repair_rows(greedy: Sequence[Json]) -> Rows:
    """A row per kind of error, a column per generator: turns after which the next was correct."""
    frequency: Counter[str] = Counter()
    cells: dict[tuple[str, str], str] = {}
    for e in greedy:
        for r in e.get("repairs", ()):
            frequency[r["error"]] += r["turns"]
            cells[r["error"], words.generator(e)] = words.part(r["repaired"], r["turns"])
    names = list(map(words.generator, greedy))
    return [["feedback said", *names]] + [
        [error, *(cells.get((error, name), "–") for name in names)]
        for error, _ in frequency.most_common()
    ]


def passed_wrong_rows(evaluations: Sequence[Json]) -> Rows:
    """A row per evaluation, a column per turn: of the codes that passed the public tests, those
    that are wrong all the same."""
    shown = [e for e in evaluations if e.get("by_turn")]
    turns = max((len(e["by_turn"]) for e in shown), default=0)
    return [["", *(f"turn {t + 1}" for t in range(turns))]] + [
        [
            words.evaluation(e),
            *(words.part(t["passed_public_wrong"], t["passed_public"]) for t in e["by_turn"]),
            *["–"] * (turns - len(e["by_turn"])),
        ]
        for e in shown
    ]


def by_work(stages: Sequence[Json]) -> dict[str, Json]:
    """Seconds, tokens and executions by what was done, the longest first."""
    costs = ("seconds", "tokens", "executions")
    sums = {
        work: {cost: sum(stage[cost] for stage in alike) for cost in costs}
        for work, alike in grouped(stages, lambda stage: words.work(stage["name"])).items()
    }
    return dict(sorted(sums.items(), key=lambda item: -item[1]["seconds"]))


def _time_line(results: Json) -> str:
    """ "Time in stages: 5 min 07 s: rollouts 41 %, …": every share that rounds to 1 % or more."""
    total = results["wall_seconds"]
    shares = [
        f"{work} {100 * costs['seconds'] / total:.0f} %"
        for work, costs in by_work(results["stages"]).items()
        if total and costs["seconds"] / total >= 0.005
    ]
    return f"Time in stages: {words.duration(total)}" + (": " + ", ".join(shares) if shares else "")


def _wrapped(text: str) -> str:
    return textwrap.fill(text, WIDTH, break_long_words=False, subsequent_indent="  ")


def line(evaluations: Sequence[Json], name: str) -> str:
    """One line on a generator that was just evaluated.

    Args:
      evaluations: as in results.json; those of other generators are ignored.
      name: method and iteration, as `lab.Model.name`: "base", "mucode_1".
    """
    greedy, searched = apart([e for e in evaluations if words.folder(e) == name])
    parts = []
    for e in greedy:
        parts.append(f"greedy {words.percent(e['per_turn'][0])} after turn 1")
        if e["turns"] > 1:
            parts[-1] += f", {words.percent(e['per_turn'][-1])} after turn {e['turns']}"
    for n, searches in searched.items():
        ways = ", ".join(f"{e['search']} {words.percent(e['accuracy'])}" for e in searches)
        parts.append(f"best of {n}: {ways}")
    return f"{name}: " + ("; ".join(parts) or "not evaluated")
