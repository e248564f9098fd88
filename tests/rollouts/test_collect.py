"""The rollout loop: turns, feedback, keys, and the wall in front of private tests."""

import numpy as np
import pytest

from mucode_jax.core import records
from mucode_jax.core.records import Tests
from mucode_jax.rollouts import grading
from mucode_jax.rollouts.collect import Limits, collect, of_solution
from tests.fakes import FakeChat, FakeEngine, FakePool, problem

LIMITS = Limits(turns=3, max_new_tokens=20, max_feedback_tokens=60, context=400)


def run(script, problems, order=0, **settings):
    engine, pool = FakeEngine(script, order), FakePool()
    arguments = {"n": 2, "key": (0, "rollout", 0), **settings}
    found = list(
        collect(
            problems,
            engine=engine,
            chat=FakeChat(),
            grader=grading.public_grader(pool),
            limits=LIMITS,
            **arguments,
        )
    )
    return sorted(found, key=lambda r: (r.task_id, r.index)), engine, pool


def test_a_rollout_ends_with_the_turn_that_passes_or_with_the_last():
    def script(request, sample):
        return "ok" if len(request.id) == 3 and request.id[2] == 1 and request.id[1] == 1 else "no"

    found, engine, _ = run(script, [problem("a")])
    assert [len(r.turns) for r in found] == [3, 2]
    assert [r.passed for r in found] == [False, True]
    assert not engine.kept  # every slot is given back


def test_a_state_is_the_ids_that_were_sampled_from():
    found, engine, _ = run(lambda request, sample: f"no{request.id[2]}", [problem("a")])
    for r in found:
        for t in range(3):
            asked = [q for q in engine.requests if q.id[2] == t and (t == 0 or q.id[1] == r.index)]
            np.testing.assert_array_equal(r.state(t), asked[0].prompt_ids)
    text = FakeChat().text(found[0].state(1))
    assert text == "<user>do a<assistant>no0<user>lacks ok<assistant>"


def test_the_samples_of_a_problem_share_one_request_and_later_turns_name_their_parent():
    _, engine, _ = run(lambda request, sample: "no", [problem("a")], n=4)
    first = [q for q in engine.requests if q.id[2] == 0]
    assert len(first) == 1 and first[0].keys.shape == (4, 2)
    later = [q for q in engine.requests if q.id[2] == 1]
    assert sorted(q.parent[1] for q in later) == [0, 1, 2, 3]


def test_randomness_is_keyed_by_purpose_not_by_arrival_or_by_what_exists_already():
    def keys_of(engine):
        return {(q.id[0], q.parent is not None, tuple(map(tuple, q.keys))) for q in engine.requests}

    problems = [problem("a"), problem("b")]
    _, one, _ = run(lambda request, sample: "no", problems, order=0)
    _, two, _ = run(lambda request, sample: "no", problems[::-1], order=1)
    assert keys_of(one) == keys_of(two)
    every = {k for q in one.requests for k in map(tuple, q.keys)}
    assert len(every) == 2 * 2 * 3
    found, resumed, _ = run(lambda request, sample: "no", problems, done={("a", 0)})
    assert [(r.task_id, r.index) for r in found] == [("a", 1), ("b", 0), ("b", 1)]
    assert {k for q in resumed.requests for k in map(tuple, q.keys)} < every


def test_turns_after_a_pass_are_taken_only_where_asked_for():
    found, _, _ = run(lambda request, sample: "ok", [problem("a")], stop_on_pass=False)
    assert [len(r.turns) for r in found] == [3, 3]
    assert "All public tests passed." in FakeChat().text(found[0].turns[1].prompt_ids)


def test_identical_programs_are_executed_once():
    _, _, pool = run(lambda request, sample: "no", [problem("a"), problem("b")], n=5)
    assert sorted(program for program, _ in pool.programs) == ["no", "no"]


def test_a_prompt_that_leaves_no_room_is_refused_by_name():
    long = records.Problem("fake", "long", "train", "x" * 400, Tests(("ok",)))
    with pytest.raises(ValueError, match=r"fake long: the prompt takes 417 tokens"):
        run(lambda request, sample: "no", [long])


def test_a_sandbox_that_fails_stops_the_rollout_and_is_no_wrong_answer():
    with pytest.raises(grading.InfrastructureError, match="no file descriptors"):
        run(lambda request, sample: "infra", [problem("a")])


def test_a_reference_solution_becomes_a_rollout_like_any_other():
    pool = FakePool()
    r = of_solution(
        problem("a"),
        "ok",
        7,
        chat=FakeChat(),
        grader=grading.public_grader(pool),
        limits=LIMITS,
    )
    assert (r.index, r.passed, r.turns[0].code) == (7, True, "ok")


def test_private_tests_reach_no_prompt_no_state_and_no_public_execution():
    """The wall: a word that stands in the private tests alone is looked for everywhere else."""
    canary = "canary-in-the-private-tests"
    private = {"a": Tests((canary,)), "b": Tests((canary,))}
    found, engine, pool = run(
        lambda request, sample: "ok" if sample == 0 else "no", [problem("a"), problem("b")]
    )
    problems = {"a": problem("a"), "b": problem("b")}
    labels = grading.labels(found, problems, private, grading.private_grader(FakePool(), private))
    assert not any(any(label) for label in labels)  # the private tests did run: nothing passes them
    seen = [FakeChat().text(q.prompt_ids) for q in engine.requests]
    seen += [records.dumps(r) for r in found]
    seen += [program + repr(tests) for program, tests in pool.programs]
    assert seen and not any(canary in text for text in seen)
    fields = {
        name
        for record in (records.Problem, records.Turn, records.Rollout)
        for name in record.__dataclass_fields__
    }
    assert not any("private" in name for name in fields)


def test_labels_need_the_private_tests_only_where_the_public_ones_passed():
    private = {"a": Tests(("also",))}
    pool = FakePool()
    found, _, _ = run(
        lambda request, sample: ("ok also", "ok")[sample], [problem("a"), problem("b")]
    )
    labels = grading.labels(
        found,
        {"a": problem("a"), "b": problem("b")},
        private,
        grading.private_grader(pool, private),
    )
    assert labels == [(True,), (False,), (True,), (True,)]
    assert [program for program, _ in pool.programs] == ["ok also", "ok"]
