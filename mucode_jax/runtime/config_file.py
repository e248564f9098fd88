"""Which file `--config` means: one of the user's, or one that ships with the package, by its name.

`from configs import base` in a config file looks beside it where its folder is called configs, then
in ./configs, then among those that ship with the package, in a clone and in an installed package
alike.
"""

from __future__ import annotations

import os
import pathlib
import sys
import types
from collections.abc import Sequence

_PACKAGE = pathlib.Path(__file__).parents[1]
# In the wheel inside the package, in a clone beside it.
SHIPPED = next(p for p in (_PACKAGE / "configs", _PACKAGE.parent / "configs") if p.is_dir())


def names() -> list[str]:
    """The names of the configs that ship with the package."""
    return sorted(
        path.stem for path in SHIPPED.glob("*.py") if "\ndef get_config(" in path.read_text("utf-8")
    )


def locate(argv: Sequence[str]) -> list[str]:
    """The command line with the value of `--config` as the path of a file, where there is one.

    `FILE[:VARIANT]` stays as it is where FILE is a file. Else FILE may be the name of a config that
    ships with the package (`quickstart`), or its path in a clone (`configs/quickstart.py`).
    Anything else stays as it is, for the message that it cannot be read. Config files can import
    `configs` afterwards (see above).
    """
    argv = list(argv)
    for i, argument in enumerate(argv):
        flag, equals, value = argument.partition("=")
        if flag not in ("-config", "--config"):
            continue
        if equals:
            argv[i] = f"{flag}={_located(value)}"
        elif i + 1 < len(argv):
            argv[i + 1] = _located(argv[i + 1])
    return argv


def _located(value: str) -> str:
    file, colon, variant = value.partition(":")
    if not os.path.isfile(file):
        folder, name = os.path.split(os.path.normpath(file))
        shipped = SHIPPED / f"{name.removesuffix('.py')}.py"
        if folder not in ("", "configs") or not os.path.isfile(shipped):
            return value
        file = str(shipped)
    _offer_configs(pathlib.Path(file).resolve().parent)
    return f"{file}{colon}{variant}"


def _offer_configs(folder: pathlib.Path) -> None:
    """Makes `configs` the package of what a config file in `folder` imports under that name."""
    here = pathlib.Path("configs").absolute()
    folders = [folder] * (folder.name == "configs") + [here] * here.is_dir() + [SHIPPED]
    path = list(dict.fromkeys(map(str, folders)))
    known = sys.modules.get("configs")
    if known is not None and list(getattr(known, "__path__", ())) == path:
        return
    for name in [name for name in sys.modules if name.split(".")[0] == "configs"]:
        del sys.modules[name]  # of another config file, earlier in this process
    package = sys.modules["configs"] = types.ModuleType("configs")
    package.__path__ = path
