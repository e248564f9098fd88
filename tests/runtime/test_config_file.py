"""Which file --config means, and what `from configs import …` finds in it."""

import sys

import pytest

from mucode_jax.runtime import config_file
from mucode_jax.runtime.config_file import SHIPPED


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Not in a clone; what a test makes of `configs` is gone after it."""
    before = {name: module for name, module in sys.modules.items() if name.startswith("configs")}
    monkeypatch.chdir(tmp_path)
    yield
    for name in [name for name in sys.modules if name.startswith("configs")]:
        del sys.modules[name]
    sys.modules |= before


def located(value):
    *_, result = config_file.locate(["main", "--seed", "3", "--config", value])
    assert config_file.locate(["main", f"-config={value}"]) == ["main", f"-config={result}"]
    return result


def imported(name):
    """What `from configs import NAME` finds: the file."""
    namespace = {}
    exec(f"from configs import {name} as found", namespace)
    return namespace["found"].__file__


@pytest.mark.parametrize(
    "value", ["quickstart", "quickstart.py", "configs/quickstart.py", "./configs/quickstart"]
)
@pytest.mark.parametrize("variant", ["", ":tiny", ":a:b", ":"])
def test_a_shipped_config_is_found_by_its_name_and_by_its_path_in_a_clone(value, variant):
    assert located(value + variant) == f"{SHIPPED}/quickstart.py{variant}"


@pytest.mark.parametrize(
    "value",
    ["", ":tiny", "nosuch", "nosuch.py:tiny", "other/quickstart.py", "/quickstart", "../quickstart"]
    + ["a" * 5000, "a\0b", "quickstart.json", "configs"],
)
def test_anything_else_stays_for_the_message_that_it_cannot_be_read(value):
    assert located(value) == value


def test_the_rest_of_the_command_line_is_left_alone():
    argv = ["main", "quickstart", "--config.seed=quickstart", "--workdir", "quickstart", "--config"]
    assert config_file.locate(argv) == argv


def test_a_file_of_ones_own_goes_before_a_shipped_one_and_a_folder_does_not(tmp_path):
    (tmp_path / "quickstart").mkdir()
    assert located("quickstart") == f"{SHIPPED}/quickstart.py"
    (tmp_path / "quickstart.py").touch()
    assert located("quickstart.py:tiny") == "quickstart.py:tiny"
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/quickstart.py").touch()
    assert located("configs/quickstart.py") == "configs/quickstart.py"
    assert located("configs/evidence.py") == f"{SHIPPED}/evidence.py"


def test_a_config_anywhere_imports_the_shipped_ones(tmp_path):
    (tmp_path / "mine.py").touch()
    located("mine.py")
    assert imported("base") == f"{SHIPPED}/base.py"
    located(str(tmp_path / "mine.py"))
    assert imported("quickstart") == f"{SHIPPED}/quickstart.py"


@pytest.mark.parametrize("where", ["configs/mine.py", "experiments/mine.py"])
def test_a_folder_called_configs_is_searched_first_beside_the_file_or_here(tmp_path, where):
    for file in ("configs/mine.py", "configs/common.py", "experiments/mine.py"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
    located(where)
    assert imported("common") == str(tmp_path / "configs/common.py")
    assert imported("base") == f"{SHIPPED}/base.py"


def test_a_shipped_config_imports_the_shipped_base_whatever_is_here(tmp_path):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/base.py").touch()
    (tmp_path / "mine.py").touch()
    located("quickstart")
    assert imported("base") == f"{SHIPPED}/base.py"
    located("mine.py")  # in the same process, as a notebook may
    assert imported("base") == str(tmp_path / "configs/base.py")


def test_the_names_are_those_of_files_that_hold_a_config():
    names = config_file.names()
    assert {"base", "quickstart", "evidence"} <= set(names) and "ablation" not in names
