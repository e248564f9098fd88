"""The card of an exported model: what it is, how it was trained, what was measured, its licence."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re
from typing import Any

from mucode_jax.report import text, words

Json = Any
_PAPER = "Multi-Turn Code Generation Through Single-Step Rewards, arXiv:2502.20380"


@dataclasses.dataclass(frozen=True)
class Licence:
    """What the base model's licence asks of a model that was made of it.

    Attributes:
      name: as the hub's cards name it.
      prefix: what the model's name has to begin with.
      demands: sentences for the card.
      notice: text that has to be passed on with the model.
    """

    name: str
    prefix: str = ""
    demands: str = ""
    notice: str = ""


def base(what: str, config: Json) -> str:
    """The name of the model that a generator or a verifier was made of."""
    own = config.get("verifier", {}).get("path") if what == "verifier" else None
    return own or config["generator"].get("path", "")


def licence(base: str, directory: pathlib.Path) -> Licence:
    """The licence of a model made of `base`, by the licence texts in its directory or by its name.

    Llama's community licences ask for the name "Llama" at the front, "Built with Llama", a copy of
    the agreement and a notice (Llama 2: agreement and notice alone).
    """
    if base == "mini":
        return Licence(
            "apache-2.0", demands="The base came with mucode_jax, under the same licence."
        )
    texts = [f.read_text("utf-8", "replace") for f in sorted(directory.glob("LICENSE*"))]
    head = " ".join(texts)[:2000] or base
    found = re.search(r"llama[ -]?([234](?:\.\d)?)(?![\d.]*b)", head, re.I)
    if found is None:
        named = "The licence of the base model holds"
        where = (
            "; its text is in this directory."
            if texts
            else ("; none was found in its directory. Look it up before you pass this model on.")
        )
        return Licence("other", demands=named + where)
    version = found[1]
    names = f"Llama {version}"
    kept = (
        "It is in this directory."
        if texts
        else (
            f"Put a copy of it here before you pass this model on: https://www.llama.com/llama"
            f"{version.replace('.', '_')}/license/."
        )
    )
    notice = (
        f"{names} is licensed under the {names} Community License, "
        "Copyright © Meta Platforms, Inc. All Rights Reserved."
    )
    if version == "2":
        return Licence("llama2", "", f"The {names} Community License holds. {kept}", notice)
    demands = (
        f"**Built with Llama.** The {names} Community License holds. {kept} A model made of "
        "Llama that is passed on has to bear a name that begins with “Llama”."
    )
    return Licence(f"llama{version}", "Llama-", demands, notice)


def write(what: str, method: str, iteration: int, results: Json, of: Licence) -> str:
    """The card, Markdown with the hub's front matter."""
    config = results["config"]
    made_of = base(what, config)
    whose = {"method": method, "iteration": iteration}
    name = words.generator(whose)
    slug = f"{method}-{iteration}" if iteration else method
    front = {
        "license": of.name,
        "library_name": "transformers",
        "pipeline_tag": "text-generation" if what == "generator" else "text-classification",
        "tags": ["mucode", "code", what],
    }
    if re.fullmatch(r"[\w.-]+/[\w.-]+", made_of):
        front["base_model"] = made_of
    title = f"{of.prefix}{slug}-{what}" if of.prefix else f"{name}: {what}"
    lines = ["---"]
    for key, value in front.items():
        lines.append(f"{key}: {json.dumps(value) if isinstance(value, list) else value}")
    lines += ["---", "", f"# {title}", ""]
    lines += _about(what, name, made_of, config)
    lines += ["", "## What was measured", ""]
    lines += _generator_numbers(whose, results) if what == "generator" else []
    lines += _verifier_numbers(whose, results) if what == "verifier" else []
    lines += ["", "## How it was trained", "", *_training(what, results)]
    lines += ["", "## Using it", "", *(_USE[what].splitlines())]
    lines += ["", "## Licence", "", of.demands]
    return "\n".join(lines) + "\n"


_USE = {
    "generator": """\
```bash
python -m mucode_jax.solve --generator THIS_DIRECTORY --verifier none problem.py
```

```python
import transformers

tokenizer = transformers.AutoTokenizer.from_pretrained("THIS_DIRECTORY")
model = transformers.AutoModelForCausalLM.from_pretrained("THIS_DIRECTORY")
```

Code that it writes is untrusted: run it in a sandbox (`python -m mucode_jax.sandbox`).""",
    "verifier": """\
It reads the first user message and one assistant message, never what lies between, through the
chat template, ended by the end-of-turn token. A higher score is more likely to be correct; scores
compare completions of the same problem.

```bash
python -m mucode_jax.score --verifier THIS_DIRECTORY --pairs pairs.jsonl --out scored.jsonl
```

```python
import transformers

verifier = transformers.AutoModelForSequenceClassification.from_pretrained("THIS_DIRECTORY")
```""",
}


def _about(what: str, name: str, base: str, config: Json) -> list[str]:
    train = config["train"]
    problems = f"`{train['benchmark']}`, split `{train['split']}`"
    if what == "generator":
        return [
            f"A code generator, made of {_code(base)} by {name} ({_PAPER}) on {problems}: it "
            "writes code, reads what the public tests said, and writes again."
        ]
    return [
        f"A verifier R(problem, code), {_code(base)} with a scalar head, trained on labelled "
        f"rollouts up to those of {name} on {problems} ({_PAPER})."
    ]


def _code(base: str) -> str:
    return f"`{base}`" if not base.startswith("a ") else base


def _generator_numbers(whose: Json, results: Json) -> list[str]:
    of = [
        e
        for e in results["evaluations"]
        if e["method"] == "base" or {key: e[key] for key in whose} == whose
    ]
    parts = [part for group in text.groups(of) for part in text.section(group, text.markdown)]
    return ["\n\n".join(parts) or "Nothing was measured of it."]


def _verifier_numbers(whose: Json, results: Json) -> list[str]:
    own = [v for v in results["verifiers"] if {key: v[key] for key in whose} == whose]
    if not own:
        return ["Nothing was measured of it."]
    rows = text.verifier_rows({"verifiers": own})
    return ["On problems held out from its training:", "", text.markdown(rows)]


def _training(what: str, results: Json) -> list[str]:
    config = results["config"]
    r, section = config["rollout"], "sft" if what == "generator" else "verifier_training"
    s = config[section]
    batch = f"{s['rows']} rows of {s['length']} tokens" if s["rows"] else s["batch"]
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    lines = [
        f"- {r['n']} rollouts a problem, at most {r['turns']} turns, temperature "
        f"{r['temperature']}, {config['iterations']} iterations",
        f"- learning rate {s['learning_rate']:g} ({s['schedule']}), {s['epochs']} epochs, batch "
        f"{batch}" + (f", loss `{s['loss']}`" if "loss" in s else ""),
        f"- seed {results['seed']}, backend {results['backend']}, sandbox isolation "
        f"{results['isolation']['level']}, {words.duration(results['wall_seconds'])} in "
        "stages",
        f"- {versions}",
        "",
        "<details><summary>All settings</summary>",
        "",
        "```json",
        json.dumps(config, indent=1, ensure_ascii=False),
        "```",
        "",
        "</details>",
    ]
    return lines
