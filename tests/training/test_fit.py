"""The training loop: resume, stop, divergence, damaged checkpoints, several hosts."""

import logging
import math
import pathlib
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

from mucode_jax.models import llama, sharding, verifier
from mucode_jax.runtime import interruption
from mucode_jax.training import batches, checkpoints, losses
from mucode_jax.training.fit import Diverged, Interrupted, Recipe, fit

from . import toys

STEPS = 2 * len(toys.EPOCHS[0])


@pytest.fixture(scope="module")
def mesh():
    return sharding.make_mesh(2, 2, 1, devices=jax.devices()[:4])


@pytest.fixture(scope="module")
def undisturbed(mesh):
    jax.config.update("jax_disable_most_optimizations", True)
    return [np.asarray(x) for x in jax.tree.leaves(toys.fit(mesh))]


def equal(params, expected):
    for found, right in zip(jax.tree.leaves(params), expected, strict=True):
        np.testing.assert_array_equal(np.asarray(found), right)


class Killed(Exception):
    pass


def killed_at(step):
    def on_step(number, steps, metrics):
        if number == step:
            raise Killed

    return on_step


def _checkpointed(mesh, folder):
    """A run that saved at step 2, as soon as it could, and died at step 4."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(checkpoints, "EVERY_S", 0)
        toys.fit(mesh, checkpoints=folder, on_step=killed_at(4))
    assert (folder / "2").is_dir()


def test_a_run_goes_on_where_it_was_and_ends_with_the_same_bits(mesh, undisturbed, tmp_path):
    _checkpointed(mesh, tmp_path)
    steps, epochs = [], []
    trained = toys.fit(
        mesh,
        checkpoints=tmp_path,
        on_step=lambda step, of, metrics: steps.append(step),
        on_epoch=lambda epoch, params: epochs.append(epoch),
    )
    assert steps == list(range(3, STEPS + 1)) and epochs == [0, 1]
    equal(trained, undisturbed)


# One device; two, of which each has half the rows; eight.
MESHES = {1: (1, 1, 1), 2: (1, 2, 1), 8: (4, 2, 1)}
PAIRS = batches.make_pairs(toys.verifier_examples(30), pairs_per_problem=4, key=(0,))
SINGLES = toys.verifier_examples(30)
CASES = {
    "sft": (losses.sft, llama, toys.generator, batches.pack_sft, toys.SFT),
    "bradley_terry": (
        losses.bradley_terry,
        verifier,
        toys.verifier_params,
        batches.pack_pairs,
        PAIRS,
    ),
    "bce": (losses.bce, verifier, toys.verifier_params, batches.pack_singles, SINGLES),
}


def trained(case, devices, **recipe):
    """(the examples of every step, the trained parameters) of a training on so many devices."""
    make_loss, model, params, pack, examples = CASES[case]
    mesh = sharding.make_mesh(*MESHES[devices], devices=jax.devices()[:devices])
    recipe = Recipe(
        **{"epochs": 2, "batch": 6, "length": 24, "optimizer": toys.OPTIMIZER, **recipe}
    )
    packed = pack(examples, recipe.packing(case, mesh), (0,))
    found = fit(
        make_loss(toys.CONFIG),
        params,
        packed.epochs,
        recipe,
        axes=model.logical_axes(toys.CONFIG),
        mesh=mesh,
    )
    steps = [
        sorted(id(example) for row in step for example in row)
        for epoch in packed.epochs
        for step in epoch.contents
    ]
    return packed.epochs[0].shape, steps, found


@pytest.mark.parametrize("case", CASES)
def test_devices_and_microbatches_change_neither_the_examples_of_a_step_nor_what_is_learned(case):
    """The last step holds fewer; on eight devices there are rows to spare."""
    shape, expected, parameters = trained(case, 1)
    assert {len(step) for step in expected} == {6, len(CASES[case][4]) % 6 or 6}
    rows = {shape.rows}
    for devices, microbatches in ((2, 1), (8, 1), (2, 3)):
        shape, steps, found = trained(case, devices, microbatches=microbatches)
        assert steps == expected
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(np.asarray(a), np.asarray(b), atol=5e-4),
            found,
            parameters,
        )
        rows.add(shape.rows)
    assert len(rows) > 2


def test_a_checkpoint_resumes_on_another_mesh_in_batches_of_another_shape(
    mesh, undisturbed, tmp_path
):
    _checkpointed(mesh, tmp_path)
    other = sharding.make_mesh(4, 2, 1)
    recipe = Recipe(epochs=2, batch=10, length=40, optimizer=toys.OPTIMIZER)
    packed = batches.pack_sft(toys.SFT, recipe.packing("sft", other), (0,))
    assert packed.epochs[0].shape.rows == 8
    steps = []
    found = toys.fit(
        other,
        epochs=packed.epochs,
        checkpoints=tmp_path,
        on_step=lambda step, of, metrics: steps.append(step),
    )
    assert steps == list(range(3, STEPS + 1))
    assert len(jax.tree.leaves(found)[0].sharding.device_set) == 8
    for ours, right in zip(jax.tree.leaves(found), undisturbed, strict=True):
        np.testing.assert_allclose(np.asarray(ours), right, atol=2e-4)


def test_half_written_and_damaged_checkpoints_are_passed_over(mesh, tmp_path, caplog):
    state = {"w": jax.numpy.arange(1000, dtype=jax.numpy.float32)}
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), state)
    abstract["w"] = jax.ShapeDtypeStruct((1000,), np.float32, sharding=state["w"].sharding)
    with checkpoints.Checkpoints(str(tmp_path), {"run": 1}) as saved:
        for step in (1, 2):
            saved.save(step, {"w": state["w"] + step})
        saved.wait()
    # What is left of a save that was killed: a folder under its temporary name.
    (tmp_path / "3.orbax-checkpoint-tmp-17" / "state").mkdir(parents=True)
    with checkpoints.Checkpoints(str(tmp_path), {"run": 1}) as saved:
        step, found = saved.restore(abstract)
        assert step == 2
        np.testing.assert_array_equal(found["w"], np.arange(1000) + 2)
    assert not list(tmp_path.glob("*tmp*"))

    # One flipped bit in the largest file, which is where the numbers are.
    largest = max((tmp_path / "2").rglob("*"), key=lambda f: f.stat().st_size if f.is_file() else 0)
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 1
    largest.write_bytes(data)
    caplog.set_level(logging.WARNING, "mucode_jax")
    with checkpoints.Checkpoints(str(tmp_path), {"run": 1}) as saved:
        step, found = saved.restore(abstract)
    assert step == 1
    np.testing.assert_array_equal(found["w"], np.arange(1000) + 1)
    assert "checkpoint 2" in caplog.text

    # One cut short.
    largest.write_bytes(data[: len(data) // 2])
    caplog.clear()
    with checkpoints.Checkpoints(str(tmp_path), {"run": 1}) as saved:
        assert saved.restore(abstract)[0] == 1 and "checkpoint 2" in caplog.text

    # And one that cannot be read at all.
    (tmp_path / "2" / "state" / "_METADATA").write_text("{")
    for file in (tmp_path / "2" / "state").rglob("manifest.ocdbt"):
        file.write_bytes(b"")
    caplog.clear()
    with checkpoints.Checkpoints(str(tmp_path), {"run": 1}) as saved:
        assert saved.restore(abstract)[0] == saved.latest == 1
        assert "passing over checkpoint 2" in caplog.text
        # The same step is reached again, and takes its place.
        saved.save(2, {"w": state["w"] + 2})
    with checkpoints.Checkpoints(str(tmp_path), {"run": 1}) as saved:
        assert saved.restore(abstract)[0] == saved.latest == 2


def test_a_file_in_the_place_of_checkpoints_goes(tmp_path, caplog):
    (tmp_path / "here").write_text("")
    with checkpoints.Checkpoints(str(tmp_path / "here"), {"run": 1}) as saved:
        assert saved.latest is None and "is no folder of checkpoints" in caplog.text
        saved.save(1, {"w": jax.numpy.zeros(3)})
        saved.wait()
        assert saved.latest == 1


def test_a_checkpoint_of_another_recipe_is_passed_over(mesh, undisturbed, tmp_path, caplog):
    """Also where new ones are of earlier steps than it is."""
    with checkpoints.Checkpoints(str(tmp_path), {"steps": [STEPS]}) as saved:
        saved.save(STEPS + 90, {"w": jax.numpy.zeros(3)})
        saved.save(STEPS + 91, {"w": jax.numpy.zeros(3)})
    _checkpointed(mesh, tmp_path)
    assert "of a run with other steps, epochs, batch" in caplog.text
    steps = []
    trained = toys.fit(
        mesh, checkpoints=tmp_path, on_step=lambda step, of, metrics: steps.append(step)
    )
    equal(trained, undisturbed)
    assert steps[0] > 2 and f"checkpoint {STEPS + 91}" in caplog.text


def test_a_save_is_due_no_sooner_than_twenty_times_its_duration(tmp_path, monkeypatch):
    now = 100.0
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: now)
    monkeypatch.setattr(checkpoints, "EVERY_S", 1)
    with checkpoints.Checkpoints(str(tmp_path), {}) as saved:
        now = 100.9
        assert not saved.due()
        now = 101.0
        assert saved.due()
        saved.save(1, {"w": jax.numpy.zeros(3)})
        now = 103.0
        saved.wait()
        assert saved.seconds == 2.0
        now = 142.9
        assert not saved.due()
        now = 143.0
        assert saved.due()


def test_divergence_stops_the_run_and_keeps_the_last_good_checkpoint(
    mesh, undisturbed, tmp_path, monkeypatch
):
    monkeypatch.setattr(checkpoints, "EVERY_S", 0)
    poisoned = list(toys.EPOCHS[1])
    poisoned[0]["weights"][0, 0] = np.nan
    first = len(toys.EPOCHS[0]) + 1
    seen = []
    with pytest.raises(Diverged, match=rf"step {first} of {STEPS}.*of step 2") as error:
        toys.fit(
            mesh,
            epochs=[toys.EPOCHS[0], poisoned],
            checkpoints=tmp_path,
            on_step=lambda step, steps, metrics: seen.append(metrics["loss"]),
        )
    assert len(seen) == first - 1 and all(map(math.isfinite, seen))
    assert str(tmp_path) in str(error.value)
    equal(toys.fit(mesh, checkpoints=tmp_path), undisturbed)


def test_asked_to_stop_it_saves_says_where_and_resumes(mesh, undisturbed, tmp_path, monkeypatch):
    answers = iter([False, False, True, True])
    with monkeypatch.context() as patch, pytest.raises(Interrupted, match="resumes from step 4"):
        patch.setattr(interruption, "asked", lambda: next(answers))
        toys.fit(mesh, checkpoints=tmp_path)
    equal(toys.fit(mesh, checkpoints=tmp_path), undisturbed)


def test_metrics_and_epochs_are_reported_in_order_and_the_given_parameters_are_kept(mesh):
    events = []
    layout = sharding.shardings(toys.generator(), llama.logical_axes(toys.CONFIG), mesh)
    params = jax.device_put(toys.generator(), layout)
    toys.fit(
        mesh,
        params=lambda: params,
        on_step=lambda step, steps, metrics: events.append((step, steps, sorted(metrics))),
        on_epoch=lambda epoch, trained: events.append(epoch),
    )
    names = ["grad_norm", "learning_rate", "loss"]
    half = STEPS // 2
    steps = [(step, STEPS, names) for step in range(1, STEPS + 1)]
    assert events == [*steps[:half], 0, *steps[half:], 1]
    jax.tree.map(np.testing.assert_array_equal, params, toys.generator())


def test_rows_that_cannot_be_divided_are_an_error_that_says_by_what(mesh):
    with pytest.raises(ValueError, match="4 rows .*microbatches = 12; choose a multiple"):
        toys.fit(mesh, microbatches=3)
    with pytest.raises(ValueError, match="nothing to train on"):
        toys.fit(mesh, epochs=[[], []])


@pytest.mark.slow
def test_two_processes_train_to_the_parameters_of_one(mesh, undisturbed, tmp_path):
    """Through jax.distributed; also: both stop when one is asked to, and one host goes on alone."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    root = pathlib.Path(__file__).resolve().parents[2]
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.training.two_processes", str(i), str(port), tmp_path],
            cwd=root,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for i in range(2)
    ]
    try:
        outputs = [process.communicate(timeout=600)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(outputs)
    assert all("resumes from step 4" in output for output in outputs), "\n".join(outputs)
    with np.load(tmp_path / "together.npz") as together:
        for found, right in zip(together.values(), undisturbed, strict=True):
            np.testing.assert_allclose(found, right, atol=1e-5)
    alone = toys.fit(mesh, checkpoints=tmp_path / "checkpoints")
    for found, right in zip(jax.tree.leaves(alone), undisturbed, strict=True):
        np.testing.assert_allclose(np.asarray(found), right, atol=1e-5)
