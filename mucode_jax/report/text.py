"""The results as plain text: what a person sees in the terminal at the end of a run."""

from __future__ import annotations

import textwrap
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from mucode_jax.report import words
from mucode_jax.rollouts.evaluate import wilson

Json = Any
WIDTH = 100
BY_TURN = (
    "Verifiers, on the candidates of the searches that they chose in; “best one is correct” of the "
    "problems that have both kinds at that turn"
)


def grid(rows: Sequence[Sequence[str]], width: int = WIDTH) -> str:
    """Rows of cells as aligned columns, the first row their heads.

    The first column is to the left, the others to the right; what does not fit in `width` follows
    below, with the first column again.
    """
    widths = [max(len(row[c]) for row in rows) for c in range(len(rows[0]))]
    blocks: list[list[int]] = [[]]
    used = widths[0]
    for c in range(1, len(widths)):
        if blocks[-1] and used + 3 + widths[c] > width:
            blocks.append([])
            used = widths[0]
        blocks[-1].append(c)
        used += 3 + widths[c]
    lines: list[str] = []
    for block in blocks:
        lines += [""] if lines else []
        for row in rows:
            cells = [row[0].ljust(widths[0]), *(row[c].rjust(widths[c]) for c in block)]
            lines.append("   ".join(cells).rstrip())
    return "\n".join(lines)


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as a Markdown table, the first row their heads."""
    head, *body = rows
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *body]
    return "\n".join("| " + " | ".join(row) + " |" for row in lines)


def groups(evaluations: Sequence[Json]) -> list[list[Json]]:
    """The evaluations by benchmark, split and protocol: what may stand in one table."""
    found: dict[tuple, list[Json]] = defaultdict(list)
    for e in evaluations:
        found[e["benchmark"], e["split"], e["protocol"]].append(e)
    return list(found.values())


def table(results: Json) -> str:
    """All that a run found, for the terminal: at most 100 columns, no colours."""
    parts = []
    for group in groups(results["evaluations"]):
        parts += section(group, grid)
    if results["verifiers"]:
        verifiers = grid(verifier_rows(results))
        parts.append(f"Verifiers, on problems held out from their training\n\n{verifiers}")
    if len(by_turn := verifier_turn_rows(results["evaluations"])) > 1:
        parts.append(f"{_wrapped(BY_TURN)}\n\n{grid(by_turn)}")
    time = _wrapped(f"Time in stages: {time_line(results)}")
    parts.append(f"{time}\n{_wrapped(setting_line(results))}")
    return "\n\n".join(parts)


def apart(evaluations: Sequence[Json]) -> tuple[list[Json], dict[int, list[Json]]]:
    """The greedy ones, and the searches by N."""
    searched: dict[int, list[Json]] = {}
    for e in sorted(evaluations, key=lambda e: e["n"]):
        if e["search"] != "greedy":
            searched.setdefault(e["n"], []).append(e)
    return [e for e in evaluations if e["search"] == "greedy"], searched


def section(
    evaluations: Sequence[Json], drawn: Callable[[Sequence[Sequence[str]]], str]
) -> list[str]:
    """The paragraphs on one of `groups`, its tables by `grid` or `markdown`."""
    first = evaluations[0]
    about = f"% of {first['problems']} problems ({first['benchmark']}, {first['split']})"
    greedy, searched = apart(evaluations)
    parts = []
    if greedy:
        parts.append(
            f"Solved by one greedy conversation a problem, had it stopped after that turn\n"
            f"{about}, with 95 % interval\n\n{drawn(greedy_rows(greedy))}"
        )
    for n, of_n in searched.items():
        parts.append(
            f"Solved by multi-turn Best-of-{n}: {n} candidates a turn, at most {of_n[0]['turns']} "
            f"turns, and which candidate is taken\n{about}, with 95 % interval, "
            f"searches a problem: {of_n[0]['searches']}\n\n{drawn(search_rows(of_n))}"
        )
    protocol = first["protocol"]
    return [*parts, _wrapped(f"Protocol {protocol}: {words.PROTOCOLS[protocol]}")]


def greedy_rows(greedy: Sequence[Json]) -> list[list[str]]:
    """A head and one row a generator: accuracy with its interval after each turn."""
    turns = max(e["turns"] for e in greedy)
    rows = [["", *(f"turn {t + 1}" for t in range(turns))]]
    for e in greedy:
        cells = [words.with_interval(a, wilson(a, e["problems"])) for a in e["per_turn"]]
        rows.append([words.generator(e), *cells, *[""] * (turns - len(cells))])
    return rows


def search_rows(searched: Sequence[Json]) -> list[list[str]]:
    """A head and one row a way of choosing: accuracy with its interval for each generator."""
    names = list(dict.fromkeys(words.generator(e) for e in searched))
    cells = {
        (e["search"], words.generator(e)): words.with_interval(e["accuracy"], e["ci95"])
        for e in searched
    }
    present = {choice for choice, _ in cells}
    return [["", *names]] + [
        [
            f"{choice}: {words.CHOICES.get(choice, 'a way of your own')}",
            *(cells.get((choice, name), "–") for name in names),
        ]
        for choice in words.ways(present)
    ]


def _wrapped(text: str) -> str:
    return textwrap.fill(text, WIDTH, break_long_words=False, subsequent_indent="  ")


def verifier_rows(results: Json) -> list[list[str]]:
    """A head and one row a verifier."""
    rows = [["trained on rollouts of", "loss", "pairs", "AUC", "best one is correct", "Brier"]]
    for v in results["verifiers"]:
        rows.append(
            [
                words.generator(v),
                {"bt": "Bradley-Terry", "bce": "cross-entropy"}.get(v["loss"], v["loss"]),
                words.count(v["pairs"]),
                words.number(v.get("auc")),
                "–" if v.get("top1") is None else words.percent(v["top1"]),
                words.number(v.get("brier")),
            ]
        )
    return rows


def verifier_turn_rows(evaluations: Sequence[Json]) -> list[list[str]]:
    """A head and one row a generator and turn: the verifier on the candidates it chose among."""
    rows = [["", "turn", "candidates", "AUC", "best one is correct", "Brier"]]
    several = len({e["benchmark"] for e in evaluations}) > 1
    for e in evaluations:
        for turn in e.get("verifier", ()):
            rows.append(
                [
                    words.generator(e) + (f" ({e['benchmark']})" if several else ""),
                    str(turn["turn"]),
                    words.count(turn["candidates"]),
                    words.number(turn["auc"]),
                    "–" if turn["top1"] is None else words.percent(turn["top1"]),
                    words.number(turn["brier"]),
                ]
            )
    return rows


def seconds_by_work(stages: Sequence[Json]) -> dict[str, float]:
    """Seconds by what was done, the longest first."""
    seconds: dict[str, float] = defaultdict(float)
    for stage in stages:
        seconds[words.work(stage["name"])] += stage["seconds"]
    return dict(sorted(seconds.items(), key=lambda item: -item[1]))


def time_line(results: Json) -> str:
    """ "5 min 07 s: rollouts 41 %, …", what took a hundredth of it at least."""
    total = results["wall_seconds"]
    shares = [
        f"{name} {100 * seconds / total:.0f} %"
        for name, seconds in seconds_by_work(results["stages"]).items()
        if total and seconds / total >= 0.005
    ]
    return words.duration(total) + (": " + ", ".join(shares) if shares else "")


def setting_line(results: Json) -> str:
    return (
        f"Backend {results['backend']}; sandbox isolation {results['isolation']['level']}; "
        f"seed {results['seed']}"
    )


def line(evaluations: Sequence[Json], name: str) -> str:
    """One line for a generator just evaluated.

    Args:
      evaluations: as in results.json; those of other generators are passed over.
      name: method and iteration, as `lab.Model.name`: "base", "mucode_1".
    """
    greedy, searched = apart([e for e in evaluations if words.folder(e) == name])
    parts = []
    for e in greedy:
        said = f"greedy {words.percent(e['per_turn'][0])} after turn 1"
        if e["turns"] > 1:
            said += f", {words.percent(e['per_turn'][-1])} after turn {e['turns']}"
        parts.append(said)
    for n, found in searched.items():
        said = ", ".join(f"{e['search']} {words.percent(e['accuracy'])}" for e in found)
        parts.append(f"best of {n}: {said}")
    return f"{name}: " + ("; ".join(parts) if parts else "not evaluated")
