"""The rooms: imports point down only, the lower rooms stay free of jax, the config stops early."""

import ast
import pathlib
import subprocess
import sys

import mucode_jax

ROOT = pathlib.Path(mucode_jax.__file__).parent

# Lowest first; a room may import what stands in its own line and above it in this table.
LEVELS = (
    ("records", "keys", "command", "interruption", "hosts"),
    ("sandbox", "benchmarks", "models", "lease", "bucket", "workdir", "progress", "summaries"),
    ("sampling", "training", "conversation"),
    ("grading", "score"),
    ("rollout",),
    ("search",),
    ("lab", "evaluate"),
    ("algorithms", "report", "settings", "grade"),
    ("card", "export", "problem_file", "story", "solve", "estimate"),
    ("plan", "preflight", "faults"),
    ("sweep",),
    ("aot", "main"),
)
WITHOUT_JAX = (
    "records",
    "keys",
    "command",
    "interruption",
    "sandbox",
    "benchmarks",
    "lease",
    "bucket",
    "workdir",
    "grade",
)
MAY_READ_CONFIG = (
    "main",
    "settings",
    "algorithms",
    "plan",
    "preflight",
    "sweep",
    "aot",
    "estimate",
)


def room(path: pathlib.Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


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
    placed = {name for level in LEVELS for name in level}
    assert {room(p) for p in FILES} == placed


def test_imports_point_down_only():
    level = {name: i for i, names in enumerate(LEVELS) for name in names}
    wrong = []
    for path in FILES:
        for name in imports(path):
            parts = name.split(".")
            imported = level.get(parts[1], -1) if parts[0] == "mucode_jax" and parts[1:] else -1
            if imported > level[room(path)]:
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not wrong


def test_the_config_is_read_in_main_and_the_algorithms_only():
    readers = {
        room(path)
        for path in FILES
        if any(name.split(".")[0] == "ml_collections" for name in imports(path))
    }
    assert readers <= set(MAY_READ_CONFIG)


def test_rollout_and_search_import_nothing_that_labels():
    for name in ("rollout", "search"):
        source = (ROOT / f"{name}.py").read_text(encoding="utf-8")
        for word in ("private", "labels", "label_codes", "Benchmark"):
            names = {
                node.id if isinstance(node, ast.Name) else node.attr
                for node in ast.walk(ast.parse(source))
                if isinstance(node, (ast.Name, ast.Attribute))
            }
            assert word not in names, f"{name}.py uses {word}"


def test_the_lower_rooms_do_not_import_jax():
    modules = [
        ".".join(["mucode_jax", *p.relative_to(ROOT).with_suffix("").parts]).removesuffix(
            ".__init__"
        )
        for p in FILES
        if room(p) in WITHOUT_JAX and p.name not in ("__main__.py", "worker.py")
    ]
    code = (
        "import importlib, sys\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        "print(sorted({m.split('.')[0] for m in sys.modules} & {'jax', 'flax', 'torch'}))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
