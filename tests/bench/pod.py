"""What several processes do otherwise than one: two work directories of one config, side by side.

    python -m mucode_jax.main     --config configs/quickstart.py --workdir runs/one
    python launch/local_pod.py -n 2 --config configs/quickstart.py --workdir runs/pod
    python tests/bench/pod.py runs/one runs/pod

Prints, for each stage of records, how many differ in what was said (token ids, code, verdicts) and
how many in any bit (log-probabilities and scores too); for each training, the largest difference of
a step's loss and of a parameter; for each verifier, what was measured. Exit status 1 if the base's
rollouts or labels differ, or a loss of the first iteration's trainings by more than 1e-5.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import sys
from typing import Any

import numpy as np
from safetensors.numpy import load_file
from tensorboardX.proto.event_pb2 import Event

_UNSAID = ("logprobs", "scores")


def said(value: Any) -> Any:
    """A record without what rounding may change."""
    if isinstance(value, dict):
        return {k: said(v) for k, v in value.items() if k not in _UNSAID}
    if isinstance(value, float):
        return None
    return [said(v) for v in value] if isinstance(value, list) else value


def records(one: pathlib.Path, pod: pathlib.Path, stage: pathlib.Path) -> tuple[int, int, int]:
    """(records, of which differ in what was said, in any bit)."""
    a, b = ((home / stage).read_text().splitlines() for home in (one, pod))
    if len(a) != len(b):
        return len(a), len(a), len(a)
    pairs = list(zip(a, b, strict=True))
    return (
        len(a),
        sum(said(json.loads(x)) != said(json.loads(y)) for x, y in pairs),
        sum(x != y for x, y in pairs),
    )


def largest(one: pathlib.Path, pod: pathlib.Path, stage: pathlib.Path) -> float:
    """The largest difference of a parameter."""
    a, b = (load_file(home / stage) for home in (one, pod))
    return max(float(np.max(np.abs(a[k].astype(np.float32) - b[k].astype(np.float32)))) for k in a)


def losses(home: pathlib.Path, training: str) -> dict[int, float]:
    """Step -> loss, from TensorBoard's records: length, checksum, event, checksum."""
    found = {}
    for path in sorted((home / "tensorboard" / training).glob("events.*")):
        content = path.read_bytes()
        start = 0
        while start < len(content):
            end = start + 12 + int.from_bytes(content[start : start + 8], "little")
            event = Event.FromString(content[start + 12 : end])
            for value in event.summary.value:
                if value.tag == "loss":
                    found[event.step] = value.simple_value
            start = end + 4
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("one", type=pathlib.Path)
    parser.add_argument("pod", type=pathlib.Path)
    given = parser.parse_args()
    good = True
    for path in sorted(given.one.glob("stages/*/*/*.jsonl")):
        stage = path.relative_to(given.one)
        count, words, bits = records(given.one, given.pod, stage)
        sampled = stage.name == "rollouts.jsonl" or stage.parent.name.endswith("_labels")
        early = stage.parts[1] == "base" and "search" not in str(stage) and sampled
        good &= not (early and words)
        print(f"{stage}: {words} of {count} differ in what was said, {bits} in some bit")
    for path in sorted(given.one.glob("stages/*/*/model/*.safetensors")):
        stage = path.relative_to(given.one)
        training = "/".join(stage.parts[1:3])
        one, pod = (losses(home, training) for home in (given.one, given.pod))
        assert one and one.keys() == pod.keys(), f"{training}: other steps"
        difference = max(abs(one[step] - pod[step]) for step in one)
        first = training in ("base/verifier", "mucode_1/generator", "star_1/generator")
        good &= not (first and difference > 1e-5)
        print(
            f"{training}: losses of {len(one)} steps differ by at most {difference:.2g}, "
            f"parameters by {largest(given.one, given.pod, stage):.2g}"
        )
    for path in sorted(given.one.glob("stages/*/verifier*/stage.json")):
        stage = path.relative_to(given.one)
        counts = [
            json.loads((home / stage).read_text())["counts"] for home in (given.one, given.pod)
        ]
        print(f"{stage.parent}: {counts[0]} and {counts[1]}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
