"""Benchmarks from the Hugging Face hub, by way of `datasets`."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Iterator, Mapping

from mucode_jax.benchmarks.files import Row

ATTEMPTS = 3
FIRST_WAIT_S = 2.0  # doubled after every attempt

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Source:
    """Where a benchmark is on the hub.

    Attributes:
      path, config: what `datasets.load_dataset` takes.
      files: for a data set that is plain JSONL, its file; else "".
      splits: our split -> the hub's splits that hold its records.
    """

    path: str
    config: str | None
    splits: Mapping[str, tuple[str, ...]]
    files: str = ""

    @property
    def name(self) -> str:
        return f"{self.path} ({self.config})" if self.config else self.path


def rows(source: Source, split: str) -> Iterator[Row]:
    """The records that hold `split`, under their upstream field names.

    Raises:
      ValueError: the hub did not answer, or not with this data set, after all attempts.
    """
    for hub_split in source.splits[split]:
        for number, fields in enumerate(_load(source, hub_split), start=1):
            yield Row(fields, f"{source.name}, {hub_split} record {number}")


def _load(source: Source, hub_split: str):
    """The records of one of the hub's splits; tried again with growing waits unless offline."""
    import datasets  # takes seconds, and a local file needs none of it

    attempts = 1 if datasets.config.HF_HUB_OFFLINE else ATTEMPTS
    attempt = 1
    while True:
        try:
            if source.files:
                url = f"hf://datasets/{source.path}/{source.files}"
                return datasets.load_dataset("json", data_files={hub_split: url}, split=hub_split)
            return datasets.load_dataset(source.path, source.config, split=hub_split)
        except Exception as error:  # whatever the layers below raise, the way out is the same
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            if attempt == attempts:
                raise ValueError(
                    f"the data set {source.name} could not be loaded from the hub, {attempts} "
                    f"attempt(s) made ({reason}); give a local file in the same field names with "
                    "--data FILE or config.benchmark.data"
                ) from error
        wait = FIRST_WAIT_S * 2 ** (attempt - 1)
        log.warning("%s: attempt %d failed (%s); again in %g s", source.name, attempt, reason, wait)
        time.sleep(wait)
        attempt += 1
