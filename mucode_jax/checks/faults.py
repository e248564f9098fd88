"""What ends a run although its settings are right: told in one line, with the way to go on.

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
    said = str(error.args[0] if isinstance(error, KeyError) else error)
    return _of_config_file(error) or _of_config_flag(said, argv) or said


def _of_config_flag(said: str, argv: Sequence[str]) -> str | None:
    """What is meant by what ml_collections says of `--config` and `--config.NAME`."""
    if closed := re.search(r"failure to load:.*\[Errno \d+\] (.+): '(.+)'", said, re.S):
        known = ", ".join(config_file.names())
        hint = f" (by name there are: {known})" if closed[1].startswith("No such") else ""
        return f"the config file {closed[2]} cannot be read: {closed[1]}{hint}"
    if "Path to config file is an empty string" in said:
        return "--config is empty; give --config configs/NAME.py"
    if failed := re.match(
        r"flag --config=(.*): Error whilst parsing config file:.*\n(.+)", said, re.S
    ):
        file = failed[1].partition(":")[0]
        if "get_config() missing" in failed[2]:
            return f"{file} needs a variant: --config {file}:VARIANT"
        if "get_config() takes 0 positional arguments" in failed[2]:
            return f"{file} takes no variant"
        return f"{failed[1]}: {failed[2].strip()}"
    if "FrozenConfigDict is immutable" in said:
        return "the config file's get_config returns a FrozenConfigDict; return a ConfigDict"
    if wrong := re.match(r"flag --config\.([\w.]+)=(.*?): [^:]*[\w(]", said, re.S):
        rule = (settings.ITERATE | settings.PRETRAIN).get(wrong[1])
        right = rule.right if rule else f"set by its settings, --config.{wrong[1]}.NAME=VALUE"
        return f"config.{wrong[1]} is {wrong[2]!r}; it is to be {right}"
    if "has no attribute 'get_config'" in said:
        return "the config file has no function get_config"
    if "has no attribute 'to_dict'" in said:
        return "the config file's get_config returns no ConfigDict"
    unknown = re.match(r"[\"'\\]+(\w+)", said)
    likely = re.search(r'Did you mean "(\w+)"', said)
    for flag in argv if unknown else ():
        if found := re.match(rf"--?(config\.(?:\w+\.)*?){unknown[1]}\b", flag):
            if found[1].endswith(".shape."):
                return f"{found[1]}{unknown[1]}: there is no such in this shape; set it in the file"
            meant = f"; did you mean {found[1]}{likely[1]}?" if likely else ""
            return f"{found[1]}{unknown[1]} is no setting{meant}"
    return None


def _of_config_file(error: BaseException | None) -> str | None:
    """What a config file raised, and where in it, whatever was made of that on the way."""
    while error is not None:
        frames = traceback.extract_tb(error.__traceback__)
        if own := [f for f in frames if f.name in ("<module>", "get_config")]:
            return f"{own[-1].filename}, line {own[-1].lineno}: {type(error).__name__}: {error}"
        error = error.__cause__ or error.__context__
    return None


def told(error: BaseException, workdir: str) -> tuple[str, int] | None:
    """(what to say, the exit status), or None for a fault of our own: it is shown whole."""
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
    if disk := _of_files(error):
        # Where a file is renamed, it is the new name that stands in the way.
        where = disk.filename2 or disk.filename or workdir
        return f"{disk.strerror} ({where}); mend that: {_GO_ON}", 1
    if isinstance(error, MemoryError):
        return f"the machine's memory is used up; with more of it, {_GO_ON}", 1
    return None


def _of_files(error: BaseException | None) -> OSError | None:
    """The error of the file system that is behind `error`, if one is."""
    while error is not None:
        if isinstance(error, OSError) and error.strerror:
            return error
        error = error.__cause__ or error.__context__
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
        asked = re.search(r"allocat\w* (?:\d+ bytes|[\d.]+ ?\w?i?B)", str(error))
        what = f" ({asked[0]})" if asked else ""
        raise OutOfMemory(
            f"{workdir.making or 'the run'}: out of memory on the device{what}; "
            f"{_advice(config, workdir)}; {_GO_ON} with it: what it does not concern is kept"
        ) from error


def _advice(config: Any, workdir: Workdir) -> str:
    """Which settings to lower for the stage that is being made, and an estimate of its needs."""
    kind = (workdir.making or "").rpartition("/")[2]
    section = {"verifier": "verifier_training", "generator": "sft"}.get(kind.partition("_")[0])
    of_verifier = section == "verifier_training"
    model = plan.verifier_model(config) if of_verifier else plan.model(config)
    count = sum(x.size for x in jax.tree.leaves(abstract_params(model)))
    if section is None:
        held = count * jnp.dtype(model.param_dtype).itemsize
        slots, each = config.rollout.slots, slot_bytes(model, config.rollout.context)
        cache = f"{slots} take {_size(slots * each)}" if slots else f"each takes {_size(each)}"
        return (
            f"lower config.rollout.slots ({slots or 'as many as seem to fit'}) or .context "
            f"({config.rollout.context}): {cache} beside {_size(held)} of parameters"
        )
    s = config[section]
    state = sum(jnp.dtype(d).itemsize for d in (s.param_dtype, s.param_dtype))
    state += 2 * jnp.dtype(s.moment_dtype).itemsize
    return (
        f"lower config.{section}.batch ({s.batch}) or .length ({s.length}), or raise "
        f".microbatches ({s.microbatches}): beside them parameters, gradients and moments "
        f"take {_size(count * state)} over all devices"
    )


def _size(count: float) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**28 else f"{count / 2**20:.1f} MiB"
