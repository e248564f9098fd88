"""Benchmarks from the Hugging Face hub, by way of `datasets`."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from mucode_jax.benchmarks.files import Row
from mucode_jax.models.hub import TIMEOUT_S, patiently


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
      ValueError: the hub did not answer after several attempts, or not with this data set.
    """
    for hub_split in source.splits[split]:
        for number, fields in enumerate(_load(source, hub_split), start=1):
            yield Row(fields, f"{source.name}, {hub_split} record {number}")


def _load(source: Source, hub_split: str) -> Iterable[dict[str, Any]]:
    """The records of one of the hub's splits."""
    import datasets  # takes seconds, and a local file needs none of it
    import huggingface_hub

    try:
        if not datasets.config.HF_HUB_OFFLINE:
            # `datasets` itself would try for many minutes before it gave up on a hub that hangs.
            api = huggingface_hub.HfApi()
            ask = functools.partial(api.dataset_info, source.path, timeout=TIMEOUT_S)
            patiently(source.name, ask)
        if source.files:
            url = f"hf://datasets/{source.path}/{source.files}"
            return datasets.load_dataset("json", data_files={hub_split: url}, split=hub_split)
        return datasets.load_dataset(source.path, source.config, split=hub_split)
    except Exception as error:  # whatever the layers below raise, the way out is the same
        raise ValueError(
            f"the data set {source.name} could not be loaded from the hub ({_reason(error)}); give "
            "a local file in the same field names as data (grade: --data), or set "
            "HF_HUB_OFFLINE=1 where the data set is in the cache"
        ) from error


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
