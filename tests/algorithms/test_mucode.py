"""μCode's decisions, each by its name in the paper: expert, relabelling, targets, masks."""

import types

import numpy as np
import pytest

from configs import quickstart
from mucode_jax.algorithms import common, mucode, multi_star
from mucode_jax.lab import verifier_input
from mucode_jax.training import batches
from mucode_jax.training.batches import Packing
from tests.fakes import EOT, FakeChat, rollout, turn

KEY = (0, "expert", 0)

# Two problems. "a": rollout 0 fails three times, its second turn is correct in truth (it passed
# nothing public, so only labels know); rollout 1 succeeds at once. "b": nobody is correct.
A0 = rollout("a", 0, turn("a00"), turn("a01"), turn("a02"))
A1 = rollout("a", 1, turn("a10", passed=True))
B0 = rollout("b", 0, turn("b00"), turn("b01"))
B1 = rollout("b", 1, turn("b10"), turn("b11"))
ROLLOUTS = [A0, A1, B0, B1]
LABELS = [(False, True, False), (True,), (False, False), (False, False)]
SCORES = [
    np.array([0.9, 0.4, 0.1], np.float32),
    np.array([0.2], np.float32),
    np.array([0.5, 0.6], np.float32),
    np.array([0.3, 0.8], np.float32),
]


def code(ids):
    return FakeChat().text(ids)


def experts(**settings):
    arguments = {"expert": "ov+lv", "scope": "all_turns", "drop_unsolved": True, **settings}
    found = mucode.local_search(ROLLOUTS, LABELS, SCORES, key=KEY, **arguments)
    return {task_id: code(ids) for task_id, ids in found.items()}


def test_the_expert_is_correct_first_and_best_scored_among_the_correct():
    assert experts() == {"a": "a01"}


def test_the_verifiers_expert_is_the_best_scored_whatever_its_label():
    assert experts(expert="lv") == {"a": "a00"}
    assert experts(expert="lv", drop_unsolved=False) == {"a": "a00", "b": "b11"}


def test_the_oracles_expert_is_one_of_the_correct_and_there_is_none_where_nobody_was():
    chosen = {
        code(
            mucode.local_search(
                ROLLOUTS,
                LABELS,
                SCORES,
                expert="ov",
                scope="all_turns",
                drop_unsolved=False,
                key=(seed,),
            )["a"]
        )
        for seed in range(20)
    }
    assert chosen == {"a01", "a10"}
    assert set(experts(expert="ov", drop_unsolved=False)) == {"a"}


def test_scope_final_looks_at_final_turns_only():
    assert experts(scope="final") == {"a": "a10"}
    assert experts(scope="final", expert="lv", drop_unsolved=False)["b"] == "b11"


def test_an_unsolved_problem_is_dropped_unless_it_is_asked_for():
    assert "b" not in experts()
    assert experts(drop_unsolved=False)["b"] == "b11"


def test_a_verifier_learns_a_completion_once_however_many_iterations_sampled_it():
    visited = [types.SimpleNamespace(items=ROLLOUTS, labels=LABELS)] * 2
    found = [(e.task_id, e.correct) for e in common.verifier_examples(visited)]
    assert sorted(found) == [("a", False)] * 2 + [("a", True)] * 2 + [("b", False)] * 4


@pytest.mark.parametrize("pool", ["iteration", "all"])
def test_the_pool_of_all_iterations_finds_experts_for_earlier_states_and_later_ones(
    monkeypatch, pool
):
    """ "a" is solved in the first iteration alone, "b" in the second."""
    first = types.SimpleNamespace(
        items=[A0, B0], labels=[LABELS[0], (False, False)], scores=[SCORES[0], SCORES[2]]
    )
    later = [rollout("a", 0, turn("a20")), rollout("b", 0, turn("b20", passed=True))]
    second = types.SimpleNamespace(
        items=later, labels=[(False,), (True,)], scores=[np.array([0.1]), np.array([0.2])]
    )
    sampled, learned = iter([first, second]), []

    def fine_tune(config, lab, method, iteration, examples, inputs, selection):
        pairs = [(code(e.ids[e.weights == 0]), code(e.ids[e.weights > 0])) for e in examples]
        learned.append(sorted(pairs))
        assert selection.get("pool", "iteration") == pool
        assert len(inputs) == 2 * iteration

    monkeypatch.setattr(common, "roll_out", lambda *_: next(sampled))
    monkeypatch.setattr(common, "train_verifier", lambda *_: None)
    monkeypatch.setattr(common, "fine_tune", fine_tune)
    monkeypatch.setattr(
        mucode.sample, "scores", lambda lab, verifier, of: types.SimpleNamespace(items=of.scores)
    )
    config = quickstart.get_config()
    config.expert.pool = pool
    assert len(list(mucode.iterate(config, types.SimpleNamespace(base=None), None))) == 2
    states = [("p", "a01"), ("pa00p", "a01"), ("pa00pa01p", "a01")]  # of the first iteration's "a"
    assert learned[0] == states
    pooled = [("p", "a01"), ("p", "b20"), ("pb00p", "b20")] if pool == "all" else []
    assert learned[1] == sorted([*states, *pooled, ("p", "b20")])


def relabelled(experts_of, **settings):
    arguments = {"max_unsuccessful": 3, **settings}
    found = mucode.relabel(ROLLOUTS, LABELS, SCORES, experts_of, **arguments)
    return [(e.task_id, code(e.ids[e.weights == 0]), code(e.ids[e.weights > 0])) for e in found]


def test_every_state_of_an_unsuccessful_rollout_gets_the_experts_completion():
    found = relabelled({"a": A0.turns[1].completion_ids})
    assert [(state, target) for task, state, target in found if task == "a"] == [
        ("p", "a10"),  # the successful rollout keeps its own
        ("p", "a01"),
        ("pa00p", "a01"),
        ("pa00pa01p", "a01"),
    ]


def test_at_most_so_many_unsuccessful_rollouts_the_best_scored_first():
    found = relabelled({"b": B1.turns[1].completion_ids}, max_unsuccessful=1)
    assert [state for task, state, _ in found if task == "b"] == ["p", "pb10p"]
    assert not [1 for task, *_ in relabelled({}) if task == "b"]


def test_the_mask_supervises_the_target_and_its_end_of_turn_and_nothing_else():
    example = common.example("a", A0.state(1), A1.turns[0].completion_ids)
    state, target = "pa00p", "a10"
    assert code(example.ids) == state + target
    # "p", "a00" and its end of turn, "p" | "a10" and its end of turn
    np.testing.assert_array_equal(example.weights, [0] * 6 + [1] * 4)
    assert example.ids[5 - 1] == EOT and example.ids[-1] == EOT


def test_identical_examples_are_merged_with_their_weights_added():
    one = common.example("a", A0.state(0), A1.turns[0].completion_ids)
    two = common.example("a", A0.state(0), A0.turns[1].completion_ids)
    merged = common.merge([one, two, one])
    assert [e.weights.max() for e in merged] == [2, 1]
    assert sum(e.weights.sum() for e in merged) == 2 * one.weights.sum() + two.weights.sum()


def test_what_was_merged_weighs_the_same_on_any_mesh():
    target = A1.turns[0].completion_ids
    states = [common.example(r.task_id, r.state(0), target) for r in (A0, B0, A0)]
    sampled = [types.SimpleNamespace(items=ROLLOUTS, labels=LABELS)] * 3
    for parts in (1, 8):
        packing = Packing(batch=2, length=8, parts=parts)
        ((batch,),) = batches.pack_sft(common.merge(states), packing, KEY).epochs
        assert [int((batch["weights"] == weight).sum()) for weight in (1, 2)] == [4, 4]

        packing = Packing(batch=4, length=8, parts=parts)
        (epoch,) = batches.pack_singles(common.verifier_examples(sampled), packing, KEY).epochs
        assert [step["weights"].sum() for step in epoch] == [4, 4]
        assert sum(step["labels"].sum() for step in epoch) == 2


def test_the_verifier_reads_the_first_prompt_and_one_completion_never_the_history():
    assert code(verifier_input(A0, 2)) == "pa02"


def test_multi_star_relabels_with_the_rollouts_own_final_completion():
    found = common.finals([A0])
    assert [code(e.ids[e.weights > 0]) for e in found] == ["a02"] * 3
    (whole,) = multi_star.own_turns([A0])
    assert code(whole.ids) == "pa00pa01pa02"
    assert code(whole.ids[whole.weights > 0]) == "a00a01a02"


def test_balanced_examples_give_every_problem_the_same_weight_and_keep_the_total():
    examples = [*common.finals([A0]), *common.finals([rollout("c", 0, turn("c0"))])]
    balanced = multi_star.balance(examples)
    weight = {
        task: sum(e.weights.max() for e in balanced if e.task_id == task) for task in ("a", "c")
    }
    assert weight == {"a": pytest.approx(2), "c": pytest.approx(2)}


def test_rft_takes_the_rollout_that_scores_best_correct_or_not():
    found = multi_star.best_scored(ROLLOUTS, SCORES)
    assert [code(e.ids[e.weights > 0]) for e in found] == ["a10", "b11", "b11"]
