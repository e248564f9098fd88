"""Every config's settings are those recorded in resolved.json, so that none changes unnoticed.

Where a change is meant, record it and read the difference:

    python -m tests.configs.test_resolved && git diff tests/configs/resolved.json

`base` stands there in full, an experiment by what differs from it, a pretraining in full. `deleted`
lists the settings that there once were; recording adds to it.
"""

import importlib
import json
import pathlib
import re

from configs import base
from mucode_jax.checks import settings
from mucode_jax.runtime import config_file

FILE = pathlib.Path(__file__).with_name("resolved.json")


def variants(name):
    """The variants that a config's docstring names; "" for the config itself."""
    text = importlib.import_module(f"configs.{name}").__doc__
    needed = re.findall(r"\.py:(\w+)", text)
    return needed or ["", *re.findall(r"`:([\w,]+)`", text)]


def configs():
    """NAME or NAME:VARIANT -> its config."""
    resolved = {}
    for name in config_file.names():
        module = importlib.import_module(f"configs.{name}")
        for variant in variants(name):
            label = f"{name}:{variant}" if variant else name
            resolved[label] = module.get_config(*filter(None, [variant]))
    return resolved


def resolved():
    """What resolved.json must hold beside `deleted`: label -> setting -> value, as JSON has it."""
    every = {
        label: json.loads(json.dumps(settings.flat(config))) for label, config in configs().items()
    }
    common = every["base"]
    for label, values in every.items():
        if label != "base" and values["experiment"] == "iterate":
            assert common.keys() <= values.keys(), label
            every[label] = {
                name: value for name, value in values.items() if value != common.get(name, ...)
            }
    return every


def names(recorded):
    return {name for values in recorded.values() for name in values}


def record():
    recorded = json.loads(FILE.read_text()) if FILE.exists() else {"deleted": []}
    deleted, now = recorded.pop("deleted"), resolved()
    deleted = sorted({*deleted, *names(recorded)} - names(now))
    parts = [f' "deleted": {json.dumps(deleted)}']
    for label, values in now.items():
        lines = ",\n".join(f'  "{name}": {json.dumps(value)}' for name, value in values.items())
        parts.append(f' "{label}": {{\n{lines}\n }}')  # a setting per line
    FILE.write_text("{\n" + ",\n".join(parts) + "\n}\n")


def test_every_config_resolves_to_what_is_recorded():
    recorded = json.loads(FILE.read_text())
    deleted, now = set(recorded.pop("deleted")), resolved()
    assert recorded.keys() == now.keys()
    for label, values in now.items():
        pairs = {
            name: (repr(recorded[label].get(name, "–")), repr(values.get(name, "–")))
            for name in {*recorded[label], *values}
        }
        changed = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
        assert not changed, f"{label}: setting: (recorded, now); see the docstring of this file"
    assert not names(now) & deleted


def test_every_variant_is_recorded():
    recorded = json.loads(FILE.read_text()).keys()
    for variant in base.VARIANTS:
        assert f"llama32_1b_mbpp:{variant}" in recorded
    assert {"quickstart:tiny", "quickstart:compat", "mini_pretrain:tiny"} <= recorded


def test_every_experiment_is_valid():
    for label, config in configs().items():
        if label != "base":  # it names no number of problems
            settings.validate(config)


if __name__ == "__main__":
    record()
