"""Faults in one line: what is wrong with the input, or what ended a run and how it goes on.

Nothing that was finished is ever lost: see `workdir`.
"""

from __future__ import annotations

import contextlib
import re
import traceback
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from mucode_jax.checks import plan, settings
from mucode_jax.models.llama import abstract_params
from mucode_jax.rollouts.grading import InfrastructureError
from mucode_jax.runtime import config_file, hosts, interruption
from mucode_jax.runtime.command import is_ours
from mucode_jax.runtime.workdir import Workdir
from mucode_jax.sampling.memory import slot_bytes
from mucode_jax.training import fit

_GO_ON = "nothing finished is lost, run the same command again"


class OutOfMemory(RuntimeError):
    """The device has not the memory for what was asked; the message names the settings to lower."""


def of_input(error: BaseException, argv: Sequence[str] = ()) -> str:
    """What is wrong with the flags `argv` or with the config file, which may raise anything."""
    if isinstance(error, SyntaxError):
        line = f", line {error.lineno}" if error.lineno else ""
        return f"{error.filename or 'the config file'}{line}: {error.msg}"
    if isinstance(error, RecursionError):
        return "the config file's get_config returns what holds itself, or is nested too deep"
    message = str(error.args[0] if isinstance(error, KeyError) else error)
    return _of_config_file(error) or _of_config_flag(message, argv) or message


def _of_config_file(error: BaseException) -> str | None:
    """What a config file raised, and where in it, whatever was made of that on the way."""
    for cause in _causes(error):
        for frame in reversed(traceback.extract_tb(cause.__traceback__)):
            if frame.name in ("<module>", "get_config"):
                return f"{frame.filename}, line {frame.lineno}: {type(cause).__name__}: {cause}"
    return None


# What ml_collections and absl say where `get_config` is wrong, and what is meant.
_GET_CONFIG = {
    "FrozenConfigDict is immutable": (
        "the config file's get_config returns a FrozenConfigDict; return a ConfigDict"
    ),
    "has no attribute 'get_config'": "the config file has no function get_config",
    "has no attribute 'to_dict'": "the config file's get_config returns no ConfigDict",
    "Path to config file is an empty string": "--config is empty; give --config configs/NAME.py",
}


def _of_config_flag(message: str, argv: Sequence[str]) -> str | None:
    """What is meant by ml_collections' message on `--config` or `--config.NAME`."""
    for part, meaning in _GET_CONFIG.items():
        if part in message:
            return meaning
    if match := re.search(r"failure to load:.*\[Errno \d+\] (.+): '(.+)'", message, re.S):
        reason, file = match.groups()
        known = ", ".join(config_file.names())
        hint = f" (by name there are: {known})" if reason.startswith("No such") else ""
        return f"the config file {file} cannot be read: {reason}{hint}"
    if match := re.match(
        r"flag --config=(.*): Error whilst parsing config file:.*\n(.+)", message, re.S
    ):
        config, reason = match.groups()
        file = config.partition(":")[0]
        if "get_config() missing" in reason:
            return f"{file} needs a variant: --config {file}:VARIANT"
        if "get_config() takes 0 positional arguments" in reason:
            return f"{file} takes no variant"
        return f"{config}: {reason.strip()}"
    if match := re.match(r"flag --config\.([\w.]+)=(.*?): [^:]*[\w(]", message, re.S):
        name, value = match.groups()
        rule = (settings.ITERATE | settings.PRETRAIN).get(name)
        right = rule.right if rule else f"set by its settings, --config.{name}.NAME=VALUE"
        return f"config.{name} is {value!r}; it must be {right}"
    return _of_unknown_setting(message, argv)


def _of_unknown_setting(message: str, argv: Sequence[str]) -> str | None:
    unknown = re.match(r"[\"'\\]+(\w+)", message)
    likely = re.search(r'Did you mean "(\w+)"', message)
    for flag in argv if unknown else ():
        if match := re.match(rf"--?(config\.(?:\w+\.)*?){unknown[1]}\b", flag):
            section = match[1]
            if section.endswith(".shape."):
                return f"{section}{unknown[1]} is not in this shape; set it in the config file"
            hint = f"; did you mean {section}{likely[1]}?" if likely else ""
            return f"{section}{unknown[1]} is an unknown setting{hint}"
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what it was raised from, or while handling."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def told(error: BaseException, workdir: str) -> tuple[str, int] | None:
    """(message, exit status), or None for a fault of our own: it is shown whole."""
    if isinstance(error, interruption.Interrupted):
        return f"stopped; {interruption.GO_ON}", interruption.status()
    if isinstance(error, fit.Interrupted):
        return str(error), interruption.status()
    if isinstance(error, KeyboardInterrupt):
        return f"interrupted; {interruption.GO_ON}", 130
    if isinstance(error, (InfrastructureError, fit.Diverged, OutOfMemory, hosts.Lost)):
        return str(error), 1
    if isinstance(error, ValueError) and is_ours(error):
        return str(error), 2  # it says what was wrong with the input
    for cause in _causes(error):
        if isinstance(cause, OSError) and cause.strerror:  # the file system's
            # Where a file is renamed, it is the new name that stands in the way.
            place = cause.filename2 or cause.filename or workdir
            return f"{cause.strerror} ({place}); mend that: {_GO_ON}", 1
    if isinstance(error, MemoryError):
        return f"the machine's memory is used up; with more of it, {_GO_ON}", 1
    return None


@contextlib.contextmanager
def of_section(name: str) -> Iterator[None]:
    """Bad input within the block is said to be of that section of the config."""
    try:
        yield
    except ValueError as error:
        if not is_ours(error):
            raise
        raise ValueError(f"config.{name}: {error}") from error


@contextlib.contextmanager
def device_memory(config: Any, workdir: Workdir) -> Iterator[None]:
    """Where the device's memory does not suffice within the block, says what to lower.

    Args:
      config: of the experiment.
      workdir: knows which stage is being made.

    Raises:
      OutOfMemory: in place of JAX's own error.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        size = re.search(r"allocat\w* (?:\d+ bytes|[\d.]+ ?\w?i?B)", str(error))
        raise OutOfMemory(
            f"{workdir.making or 'the run'}: out of memory on the device"
            f"{f' ({size[0]})' if size else ''}; {_advice(config, workdir.making or '')}; {_GO_ON} "
            "with it: what it does not concern is kept"
        ) from error


def _advice(config: Any, stage: str) -> str:
    """Which settings to lower for a stage, and an estimate of what it needs."""
    kind = stage.rpartition("/")[2].partition("_")[0]
    section = {"verifier": "verifier_training", "generator": "sft"}.get(kind)
    model = plan.verifier_model(config) if kind == "verifier" else plan.model(config)
    count = sum(x.size for x in jax.tree.leaves(abstract_params(model)))
    if section is None:
        held = count * jnp.dtype(model.param_dtype).itemsize
        slots, slot = config.rollout.slots, slot_bytes(model, config.rollout.context)
        cache = f"{slots} take {_size(slots * slot)}" if slots else f"each takes {_size(slot)}"
        return (
            f"lower config.rollout.slots ({slots or 'as many as seem to fit'}) or .context "
            f"({config.rollout.context}): {cache} beside {_size(held)} of parameters"
        )
    s = config[section]
    parameters, moments = (jnp.dtype(d).itemsize for d in (s.param_dtype, s.moment_dtype))
    return (
        f"lower config.{section}.batch ({s.batch}) or .length ({s.length}), or raise "
        f".microbatches ({s.microbatches}): beside them parameters, gradients and moments take "
        f"{_size(count * 2 * (parameters + moments))} over all devices"
    )


def _size(count: float) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**28 else f"{count / 2**20:.1f} MiB"
