"""Where a model's directory is: the pair that comes along, one of yours, or the hub's."""

from __future__ import annotations

import filecmp
import logging
import pathlib
import re
import time
from collections.abc import Callable
from typing import TypeVar

# The embedded generator, and a verifier that was trained on its rollouts by
#   python -m mucode_jax.main --config configs/evidence.py --workdir DIR --config.seeds="(0,)"
#   python -m mucode_jax.export --workdir DIR/seed_0 --what verifier --method base --out DIRECTORY
MINI = pathlib.Path(__file__).parent / "mini"
MINI_VERIFIER = pathlib.Path(__file__).parent / "mini_verifier"
TIMEOUT_S = 10.0  # for the hub's first answer
WAITS_S = (2.0, 4.0, 8.0)  # between attempts
# What a model's directory is made of; others may lie beside it.
MODEL_FILES = ("*.json", "*.safetensors", "*.jinja", "tokenizer*")
_FILES = (*MODEL_FILES, "merges.txt", "LICENSE*", "NOTICE*")

T = TypeVar("T")
_log = logging.getLogger(__name__)


def resolve_verifier(path: str | pathlib.Path) -> pathlib.Path:
    """As `resolve`, with "mini" for the verifier that comes along."""
    return MINI_VERIFIER if str(path) == "mini" else resolve(path)


def is_here(path: str) -> bool:
    """Whether a model is had without the hub."""
    try:
        return path == "mini" or (bool(path) and pathlib.Path(path).is_dir())
    except OSError:  # longer than a path can be
        return False


def is_embedded(directory: pathlib.Path) -> bool:
    """Whether a model descends from the one that comes along: it reads with the same tokenizer."""
    own, embedded = directory / "tokenizer.json", MINI / "tokenizer.json"
    return own.is_file() and filecmp.cmp(own, embedded, shallow=False)


def patiently(name: str, ask: Callable[[], T]) -> T:
    """What `ask` returns; asked again where it fails, but not where the hub has no such."""
    from huggingface_hub import errors

    lasting = (errors.RepositoryNotFoundError, errors.OfflineModeIsEnabled)
    for wait in WAITS_S:
        try:
            return ask()
        except lasting:
            raise
        except Exception as error:
            _log.warning("%s: no answer (%s); again in %g s", name, type(error).__name__, wait)
            time.sleep(wait)
    return ask()


def resolve(path: str | pathlib.Path) -> pathlib.Path:
    """The directory of a model: "mini" (the one that comes along), a directory, or a hub id.

    A directory may also be that of a stage that trained a model, in a work directory. A hub id is
    downloaded to the hub's own cache, `patiently`.

    Raises:
      ValueError: no such directory and no hub id, or the hub does not give it.
    """
    if str(path) == "mini":
        return MINI
    if not str(path).strip():
        raise ValueError("a model's path is empty; give a directory, a hub id, or mini")
    try:
        if (directory := pathlib.Path(path)).is_dir():
            trained = directory / "model"
            return trained if (trained / "config.json").is_file() else directory
    except OSError as error:  # closed, or longer than a path can be
        raise ValueError(f"model {str(path)[:200]}: {error.strerror}") from error
    if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", str(path)):
        raise ValueError(f"model {path}: no such directory, and not a hub id like owner/name")

    import huggingface_hub
    from huggingface_hub import constants, errors

    def ask() -> pathlib.Path:
        if not constants.HF_HUB_OFFLINE:
            # Asked first, because the download itself would wait for ever for an answer.
            huggingface_hub.HfApi().model_info(str(path), timeout=TIMEOUT_S)
        return pathlib.Path(
            huggingface_hub.snapshot_download(str(path), allow_patterns=list(_FILES))
        )

    # The hub's HTTP library differs by version; its errors are what the hub's own derive from.
    failures = (OSError, *errors.HfHubHTTPError.__bases__)
    try:
        return ask() if constants.HF_HUB_OFFLINE else patiently(str(path), ask)
    except errors.GatedRepoError as error:
        raise ValueError(
            f"model {path} is gated: accept its licence at https://huggingface.co/{path} and"
            " log in (`hf auth login`, or HF_TOKEN), or give the path of a local copy"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise ValueError(
            f"model {path}: no such directory here and no such model on the hub; if it is"
            " private, log in (`hf auth login`, or HF_TOKEN), or give the path of a local copy"
        ) from error
    except failures as error:
        reason = " ".join([f"{type(error).__name__}:", *str(error).split()])[:300]
        raise ValueError(
            f"model {path} cannot be fetched from the hub ({reason}); check the network,"
            " log in (`hf auth login`), or give the path of a local copy; where the hub's"
            " cache has it, set HF_HUB_OFFLINE=1"
        ) from error
