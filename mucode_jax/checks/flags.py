"""The flags of an experiment: its config with every setting, its work directory, its hosts."""

from __future__ import annotations

from collections.abc import Sequence

from absl import flags
from ml_collections import config_flags

from mucode_jax.runtime import config_file


def parse(argv: Sequence[str]) -> flags.FlagValues:
    """The flags' values: config, workdir, verify, coordinator, processes, process.

    Raises:
      ValueError: what is given is incomplete or no flag; besides, whatever absl, ml_collections or
        the config file raise (`faults.of_input` says what it means).
    """
    argv = config_file.locate(argv)
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=list(argv))
    for name in ("workdir", "coordinator"):
        flags.DEFINE_string(name, None, "", flag_values=values)
    for name in ("processes", "process"):
        flags.DEFINE_integer(name, None, "", flag_values=values)
    flags.DEFINE_boolean("verify", False, "", flag_values=values)
    positional = values(argv)
    if len(positional) > 1:
        raise ValueError(f"unexpected argument {positional[1]!r}; settings are --config.NAME=VALUE")
    if not values["config"].present or not values.workdir:
        raise ValueError("give --config configs/NAME.py and --workdir DIR")
    try:
        values.workdir.encode()
    except UnicodeEncodeError as error:
        raise ValueError("--workdir: its name is no UTF-8; give another") from error
    values.config.to_dict()  # raises where it is no ConfigDict, or has not been loaded
    return values
