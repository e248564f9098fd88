"""Which config file `--config` means: a file, or the name of one that comes along.

`from configs import base` in a config file finds the files beside it where its folder is called
configs, and those that come along, in a clone and in an installed package alike.
"""

from __future__ import annotations

import pathlib
import sys
import types
from collections.abc import Sequence

_PACKAGE = pathlib.Path(__file__).parents[1]
# In the wheel inside the package, in a clone beside it.
SHIPPED = next(p for p in (_PACKAGE / "configs", _PACKAGE.parent / "configs") if p.is_dir())


def names() -> list[str]:
    """The names of the configs that come along."""
    return sorted(path.stem for path in SHIPPED.glob("*.py"))


def locate(argv: Sequence[str]) -> list[str]:
    """The command line with the value of `--config` as the path of a file, where there is one.

    `FILE[:VARIANT]` stays what it is where FILE exists. Else FILE may be the name of a config that
    comes along (`quickstart`), or its path in a clone (`configs/quickstart.py`). What is none of
    these stays as it is, for the message that it cannot be read.
    """
    argv = list(argv)
    for i, flag in enumerate(argv):
        name, equals, value = flag.partition("=")
        if name not in ("-config", "--config"):
            continue
        if equals:
            argv[i] = f"{name}={_located(value)}"
        elif i + 1 < len(argv):
            argv[i + 1] = _located(argv[i + 1])
    return argv


def _located(value: str) -> str:
    file, colon, variant = value.partition(":")
    path = pathlib.Path(file)
    if not _exists(path):
        own = path.relative_to("configs") if path.parts[:1] == ("configs",) else path
        shipped = SHIPPED / own if own.suffix == ".py" else SHIPPED / f"{own}.py"
        if file and len(own.parts) == 1 and _exists(shipped):
            path = shipped
            value = f"{shipped}{colon}{variant}"
    _offer_configs(path)
    return value


def _exists(path: pathlib.Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # longer than a path can be, or a null byte in it
        return False


def _offer_configs(file: pathlib.Path) -> None:
    """Makes `configs` a package of the folder of `file`, if that is called so, and of ours."""
    beside = [str(file.resolve().parent)] if file.resolve().parent.name == "configs" else []
    package = sys.modules.setdefault("configs", types.ModuleType("configs"))
    package.__path__ = list(dict.fromkeys([*beside, str(SHIPPED)]))
