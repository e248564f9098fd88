"""The card of an exported model: what it is, how it was trained, what was measured, its licence."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re
from typing import Any

import jinja2

from mucode_jax.report import text, words

Json = Any


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
    verifier = config.get("verifier", {}).get("path") if what == "verifier" else None
    return verifier or config["generator"].get("path", "")


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
    llama = re.search(r"llama[ -]?([234](?:\.\d)?)(?![\d.]*b)", head, re.I)
    if llama is None:
        demands = "The licence of the base model holds; " + (
            "its text is in this directory."
            if texts
            else "none was found in its directory. Look it up before you pass this model on."
        )
        return Licence("other", demands=demands)
    name = f"Llama {llama[1]}"
    address = f"https://www.llama.com/llama{llama[1].replace('.', '_')}/license/"
    demands = f"The {name} Community License holds. " + (
        "It is in this directory."
        if texts
        else f"Put a copy of it here before you pass this model on: {address}."
    )
    notice = (
        f"{name} is licensed under the {name} Community License, "
        "Copyright © Meta Platforms, Inc. All Rights Reserved."
    )
    if llama[1] == "2":
        return Licence("llama2", "", demands, notice)
    demands = (
        f"**Built with Llama.** {demands} A model made of Llama that is passed on has to bear a "
        "name that begins with “Llama”."
    )
    return Licence(f"llama{llama[1]}", "Llama-", demands, notice)


def write(what: str, method: str, iteration: int, results: Json, licence: Licence) -> str:
    """The card, Markdown with the hub's front matter.

    Raises ValueError, KeyError or TypeError where `results` lacks something.
    """
    config = results["config"]
    trained = {"method": method, "iteration": iteration}
    name = words.generator(trained)
    made_of = base(what, config)
    slug = f"{method}-{iteration}" if iteration else method
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mucode_jax.report", "."),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    try:
        return environment.get_template("card.md.jinja").render(
            what=what,
            name=name,
            title=f"{licence.prefix}{slug}-{what}" if licence.prefix else f"{name}: {what}",
            base=made_of,
            is_hub_id=re.fullmatch(r"[\w.-]+/[\w.-]+", made_of),
            licence=licence,
            measured=_measured(what, trained, results),
            rollout=config["rollout"],
            training=config["sft" if what == "generator" else "verifier_training"],
            results=results,
            config=config,
            settings=json.dumps(config, indent=1, ensure_ascii=False),
            time=words.duration(results["wall_seconds"]),
        )
    except jinja2.UndefinedError as error:
        raise ValueError(str(error)) from error


def _measured(what: str, trained: Json, results: Json) -> str:
    """The tables of a verifier, or of a generator and its base."""
    if what == "verifier":
        verifiers = [v for v in results["verifiers"] if v.items() >= trained.items()]
        table = text.markdown(text.verifier_rows(verifiers))
        about = f"On problems held out from its training. {text.MIXED}."
        return f"{about}\n\n{table}" if verifiers else ""
    evaluations = [
        e for e in results["evaluations"] if e["method"] == "base" or e.items() >= trained.items()
    ]
    groups = text.groups(evaluations)
    return "\n\n".join(part for group in groups for part in text.section(group, text.markdown))
