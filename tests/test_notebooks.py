"""The notebooks do what they say: every cell runs, top to bottom, but for the installation."""

import os
import pathlib
import re
import sys
import textwrap

import pytest

nbclient = pytest.importorskip("nbclient", reason="needs nbclient and ipykernel (extra `test`)")
import nbformat  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[1]


# Small enough that compiling is most of it; the same for both, so that they share programs.
SMALL = (
    "--config.train.size=6 --config.rollout.n=4 --config.rollout.turns=2 --config.rollout.slots=8 "
    "--config.rollout.context=192 --config.verifier_training.epochs=1 "
    "--config.verifier_training.held_out=0.0 "
    "--config.sft.epochs=1 --config.sft.length=192 --config.search.n=2 --config.sandbox.workers=1"
)


@pytest.fixture
def execute(tmp_path, monkeypatch):
    """Runs a notebook in a folder of its own; returns all that its cells printed."""
    for name in ("configs", "mucode_jax"):
        (tmp_path / name).symlink_to(ROOT / name)
    runs = tmp_path / "runs"
    runs.mkdir()
    monkeypatch.setenv("MUCODE_WORKDIR", str(runs))
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    monkeypatch.setenv("PATH", os.path.dirname(sys.executable), prepend=os.pathsep)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def run(name):
        notebook = nbformat.read(ROOT / "launch" / name, as_version=4)
        notebook.cells = [
            cell for cell in notebook.cells if "install" not in cell.metadata.get("tags", ())
        ]
        client = nbclient.NotebookClient(
            notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}
        )
        client.execute()
        outputs = [o for c in notebook.cells if c.cell_type == "code" for o in c.outputs]
        shown = "".join(o.get("text", "") or str(o.get("data", "")) for o in outputs)
        # Commands write as to a terminal: its line ends, its colours.
        return re.sub(r"\r(?=\n)|\x1b\[[\d;]*m", "", shown)

    return run


def test_the_colab_notebook_runs_from_top_to_bottom(execute, monkeypatch):
    monkeypatch.setenv("MUCODE_CONFIG", "configs/quickstart.py:tiny")
    own = "--config.methods=mucode --config.search.methods=mucode --config.iterations=1"
    monkeypatch.setenv("MUCODE_OPTIONS", f"{SMALL} {own} --config.evaluation.size=3")
    shown = execute("colab.ipynb")
    assert "Solved by one greedy conversation a problem" in shown
    assert "<iframe srcdoc=" in shown and "Accuracy by turn" in shown
    assert "calc: the sum of the items above 3" in shown
    assert re.search(r"^solved at turn [123]: ", shown, re.M)
    assert "This runtime has no GPU or TPU" in shown


def test_the_tutorials_own_parts_are_what_ran(execute, monkeypatch):
    monkeypatch.setenv("MUCODE_OPTIONS", SMALL)
    shown = execute("tutorial.ipynb")
    assert "mucode  pt+short: " in shown and "of 8" in shown
    assert "'loss': 'hinge'" in shown


def test_the_tutorials_benchmark_takes_twenty_lines():
    notebook = nbformat.read(ROOT / "launch" / "tutorial.ipynb", as_version=4)
    (cell,) = [
        c.source for c in notebook.cells if "own.jsonl" in c.source and "FAMILIES" in c.source
    ]
    loop = textwrap.dedent(cell[cell.index("draw = ") : cell.index("print(")])
    assert len(loop.splitlines()) <= 20
