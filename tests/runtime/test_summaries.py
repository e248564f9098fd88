"""TensorBoard finds a training's metrics and a profile of a few of its steps."""

import jax.numpy as jnp

from mucode_jax.runtime import summaries


def test_metrics_and_the_profile_of_some_steps_are_written(tmp_path):
    with summaries.watched(tmp_path, "mucode_1/generator", profile_steps=2) as note:
        for step in range(1, 7):
            jnp.ones(3).sum().block_until_ready()
            note(step, {"loss": 1.0 / step, "grad_norm": 2.0})
    folder = tmp_path / "mucode_1" / "generator"
    (events,) = folder.glob("events.out.tfevents.*")
    written = events.read_bytes()
    assert written.count(b"loss") == written.count(b"grad_norm") == 6
    assert list(folder.glob("plugins/profile/*/*.xplane.pb"))


def test_a_training_that_ends_early_ends_its_profile(tmp_path):
    for _ in range(2):  # a second one could not begin if the first were still under way
        with summaries.watched(tmp_path, "short", profile_steps=50) as note:
            for step in range(1, 5):
                note(step, {"loss": 0.0})
    assert list(tmp_path.glob("short/plugins/profile/*/*.xplane.pb"))
