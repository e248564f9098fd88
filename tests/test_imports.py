"""The rooms: imports point down only, the lower rooms stay free of jax, the config stops early."""

import ast
import dataclasses
import inspect
import pathlib
import subprocess
import sys

import pytest

import mucode_jax
from mucode_jax.core import records
from mucode_jax.rollouts import agreement, collect, inputs, search

ROOT = pathlib.Path(mucode_jax.__file__).parent

# Lowest first: a room imports itself and rooms that stand above its own line in this table.
FLOORS = (
    ("core", "models", "runtime"),
    ("benchmarks", "training", "sampling"),
    ("sandbox",),
    ("rollouts",),
    ("solving", "report"),
    ("checks",),
    ("lab",),
    ("algorithms",),
    ("main", "solve", "grade", "score", "export", "aot", "__main__"),
)
COMMANDS = FLOORS[-1]
# Modules, or whole rooms, that never import jax.
WITHOUT_JAX = (
    "core",
    "sandbox",
    "benchmarks",
    "runtime.command",
    "runtime.interruption",
    "runtime.hosts",
    "runtime.lease",
    "runtime.bucket",
    "runtime.workdir",
    "grade",
    "__main__",
)
MAY_READ_CONFIG = ("main", "aot", "checks", "lab.sweep", "algorithms")


def module(path: pathlib.Path) -> str:
    """A file's name below the package: `runtime.workdir`; a package's own is its folder's."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room(path: pathlib.Path) -> str:
    return module(path).split(".")[0]


def within(name: str, places: tuple[str, ...]) -> bool:
    return any(name == place or name.startswith(f"{place}.") for place in places)


def imports(path: pathlib.Path) -> set[str]:
    """Full names of the modules that a file imports, wherever in it."""
    package = ["mucode_jax", *path.relative_to(ROOT).parts[:-1]]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            found |= {f"{module}.{name.name}" for name in node.names} | {module}
    return found


FILES = [p for p in sorted(ROOT.rglob("*.py")) if p != ROOT / "__init__.py"]


def test_every_room_has_its_place():
    placed = {name for names in FLOORS for name in names}
    assert {room(p) for p in FILES} == placed


def test_the_root_holds_what_people_run_and_nothing_else():
    assert {p.stem for p in ROOT.glob("*.py")} == {"__init__", *COMMANDS}


def test_imports_point_down_only():
    floor = {name: i for i, names in enumerate(FLOORS) for name in names}
    wrong = []
    for path in FILES:
        for name in imports(path):
            parts = name.split(".")
            if parts[0] != "mucode_jax" or not parts[1:] or parts[1] == room(path):
                continue
            if floor.get(parts[1], -1) >= floor[room(path)]:
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not wrong


def test_the_config_is_read_in_its_places_only():
    readers = {
        module(path)
        for path in FILES
        if any(name.split(".")[0] == "ml_collections" for name in imports(path))
    }
    assert not [name for name in readers if not within(name, MAY_READ_CONFIG)]


def behind_the_wall(source: str) -> set[str]:
    """The names in a module's text through which the outcome of a private test could come."""
    forbidden = {"private", "labels", "label", "label_codes", "Label", "Benchmark", "solutions"}
    used = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name):
            used.add(node.id)
        elif isinstance(node, ast.Attribute):
            used.add(node.attr)
        elif isinstance(node, (ast.arg, ast.keyword)):
            used.add(node.arg)
        elif isinstance(node, ast.alias):
            used |= {node.name, node.asname}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            used.add(node.value)  # getattr(x, "private")
    return used & forbidden


@pytest.mark.parametrize(
    "function", [collect.collect, search.best_of_n, agreement.passing, inputs.further]
)
def test_rollout_and_search_see_nothing_private(function):
    source = inspect.getsource(inspect.getmodule(function))
    assert function.__name__ in source
    assert behind_the_wall(source) == set()


@pytest.mark.parametrize(
    "breach",
    [
        "from mucode_jax.rollouts.grading import labels",
        "from mucode_jax.rollouts import grading\ngrading.label_codes(codes, tests)",
        "from mucode_jax.core.records import Benchmark",
        "def best(rollouts, labels): ...",
        "best(labels=0)",
        "tests = getattr(benchmark, 'private')",
    ],
)
def test_a_breach_of_that_wall_is_noticed(breach):
    source = inspect.getsource(collect)
    assert len(behind_the_wall(f"{source}\n{breach}\n")) == 1


def test_a_problem_carries_its_public_tests_alone():
    fields = {field.name for field in dataclasses.fields(records.Problem)}
    assert {name for name in fields if "tests" in name or name in ("public", "private")} == {
        "public"
    }


def test_the_lower_rooms_do_not_import_jax():
    modules = [
        f"mucode_jax.{module(p)}"
        for p in FILES
        if within(module(p), WITHOUT_JAX) and p.name not in ("__main__.py", "worker.py")
    ]
    assert len(modules) >= 40
    code = (
        "import importlib, sys\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        "print(sorted({m.split('.')[0] for m in sys.modules} & {'jax', 'flax', 'torch'}))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
