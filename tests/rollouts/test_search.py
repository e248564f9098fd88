"""Multi-turn Best-of-N: what is chosen, when it stops, and what the choices share."""

import json
from concurrent.futures import Future

import numpy as np
import pytest

from mucode_jax.core.conversation import Chat
from mucode_jax.models import hub, huggingface
from mucode_jax.rollouts import evaluate, grading, search
from mucode_jax.rollouts.agreement import Agreement
from mucode_jax.rollouts.collect import Limits
from mucode_jax.sampling.engine import Engine
from tests.fakes import FakeChat, FakeEngine, FakePool, problem, turn

LIMITS = Limits(turns=3, max_new_tokens=20, max_feedback_tokens=60, context=400)
CODES = ["no", "ok", "bad"]


def run(script, score=None, choices=search.CHOICES, **settings):
    engine = FakeEngine(lambda request, sample: script(request, sample % 3))
    by_problem = search.best_of_n(
        [problem("a"), problem("b")],
        engine=engine,
        chat=FakeChat(),
        grader=grading.public_grader(FakePool()),
        score=score or (lambda texts: np.zeros(len(texts), np.float32)),
        limits=LIMITS,
        n=3,
        searches=2,
        choices=choices,
        key=(0, "search", 0),
        agreement=Agreement(FakePool()),
        **settings,
    )
    found = sorted(by_problem, key=lambda searches: searches[0].task_id)
    return [one for searches in found for one in searches], engine


def pick(choice, scores, codes=CODES, failed=()):
    candidates = [turn(c, passed=c == "ok") for c in codes]
    generator = np.random.default_rng(0)
    return codes[search.choose(candidates, np.array(scores), choice, set(failed), generator)]


def test_each_choice_goes_by_what_its_name_says():
    assert pick("pt", [9, 0, 9]) == "ok"
    assert pick("lv", [0, 1, 2]) == "bad"
    assert pick("pt+lv", [9, 0, 9]) == "ok"
    assert pick("pt+lv", [1, 0, 2], codes=["no", "no2", "bad"]) == "bad"
    assert pick("pt+vote", [0] * 4, codes=["bad", "ok", "bad", "bad"]) == "ok"
    assert pick("pt+vote", [9, 0, 0], codes=["no", "bad", "bad"]) == "bad"
    assert {
        search.choose([turn(c) for c in CODES], None, "random", set(), np.random.default_rng(i))
        for i in range(30)
    } == {0, 1, 2}


def test_equal_codes_add_up_the_odds_that_the_verifier_gives_them():
    """Twice e^0.6 is more than e^1, twice e^0.2 is less."""
    codes = ["no", "bad", "bad"]
    assert pick("pt+lv+vote", [1.0, 0.6, 0.6], codes) == "bad"
    assert pick("pt+lv+vote", [1.0, 0.2, 0.2], codes) == "no"
    assert pick("pt+lv+vote", [9.0, 9.0, 0.0], ["bad", "bad", "ok"]) == "ok"


def test_a_code_that_failed_before_is_not_chosen_while_there_is_another():
    assert pick("lv", [0, 1, 2], failed={"bad"}) == "ok"
    assert pick("lv", [0, 1, 2], codes=["bad"] * 3, failed={"bad"}) == "bad"


def test_a_search_stops_where_its_choice_passes_the_public_tests():
    found, _ = run(lambda request, sample: CODES[sample])
    by = {(s.task_id, s.index, s.choice): s for s in found}
    assert len(found) == 2 * 2 * len(search.CHOICES)
    assert all(len(by["a", i, "pt"].turns) == 1 for i in range(2))
    for s in found:
        last = s.turns[-1]
        passed = last.candidates[last.chosen].grade.passed
        assert passed or len(s.turns) == LIMITS.turns


def test_searches_that_stand_in_the_same_state_share_their_candidates():
    _, engine = run(lambda request, sample: CODES[sample])
    first = [q for q in engine.requests if len(q.prompt_ids) == len(FakeChat().first("do a"))]
    assert [len(q.keys) for q in first] == [6, 6]  # per problem: two searches of three candidates
    assert len({q.id for q in engine.requests}) == len(engine.requests)


def test_no_search_waits_for_another():
    """The first candidates of one problem are chosen among while the other's are sampled."""
    engine = FakeEngine(lambda request, sample: f"no{sample % 3}")
    engine.step = lambda: [engine._queue.pop(0)]  # in the order of arrival
    turns = []
    searches = search.best_of_n(
        [problem("a"), problem("b")],
        engine=engine,
        chat=FakeChat(),
        grader=grading.public_grader(FakePool()),
        score=None,
        limits=LIMITS,
        n=3,
        searches=1,
        choices=["pt"],
        key=(0, "search", 0),
        on_turn=lambda s: turns.append((s.task_id, len(s.turns), len(engine._queue))),
    )
    assert [found[0].task_id for found in searches] == ["a", "b"]
    assert turns[0] == ("a", 1, 3)  # none of the three candidates of "b" is there
    assert not engine.kept


def test_a_program_that_ends_while_it_is_asked_about_loses_no_search(monkeypatch):
    """Every outcome is there at the second time that it is asked for."""
    asked = []

    class Slow(Future):
        def done(self):
            asked.append(self)
            return asked.count(self) > 1

    class SlowPool(FakePool):
        def submit(self, program, tests):
            outcome = Slow()
            outcome.set_result(super().submit(program, tests).result())
            return outcome

    monkeypatch.setattr("tests.rollouts.test_search.FakePool", SlowPool)
    found, _ = run(lambda request, sample: CODES[sample])
    assert {(s.task_id, s.index) for s in found} == {(t, i) for t in "ab" for i in range(2)}
    assert len(found) == 2 * 2 * len(search.CHOICES)


def test_the_verifier_reads_the_first_prompt_and_the_candidate():
    seen = []

    def score(texts):
        seen.extend(FakeChat().text(t) for t in texts)
        return np.zeros(len(texts), np.float32)

    run(lambda request, sample: f"no{sample}", score)
    assert set(seen) == {f"<user>do {p}<assistant>no{j}" for p in "ab" for j in range(3)}


def test_a_search_comes_back_from_json_as_it_was():
    found, _ = run(lambda request, sample: CODES[sample])
    of_a = [s for s in found if s.task_id == "a"]
    back = search.decode(search.encode(of_a))
    for one, two in zip(of_a, back, strict=True):
        assert (one.task_id, one.index, one.choice) == (two.task_id, two.index, two.choice)
        for t, u in zip(one.turns, two.turns, strict=True):
            assert (t.chosen, [c.code for c in t.candidates]) == (
                u.chosen,
                [c.code for c in u.candidates],
            )
            np.testing.assert_array_equal(t.scores, u.scores)


def test_the_oracle_counts_any_correct_candidate_of_any_turn_of_the_pt_search():
    found, _ = run(lambda request, sample: f"no{sample}", choices=["pt"])
    labels = [[[False, False, t == 1] for t in range(len(s.turns))] for s in found]
    read = {"turns": 3, "protocol": "deployable"}
    oracle = evaluate.search_evaluation(found, labels, choice="oracle", **read)
    assert oracle["per_turn"] == [0, 1, 1] and oracle["accuracy"] == 1
    assert (oracle["searches"], oracle["n"], oracle["problems"]) == (2, 3, 2)


def test_an_unknown_choice_is_refused_with_the_choices():
    with pytest.raises(ValueError, match="unknown search 'best'; one of random"):
        run(lambda request, sample: "no", choices=["best"])


@pytest.fixture(scope="module")
def generator():
    home = hub.resolve("mini")
    config = huggingface.read_config(home)
    chat = Chat(huggingface.load_tokenizer(home), huggingface.eot_ids(home))
    return config, huggingface.load_generator(home, config), chat


def really(generator, problems, searches, pages=None):
    """(task_id, index, choice) -> the search as JSON, by the embedded generator."""
    config, params, chat = generator
    engine = Engine(
        *(config, params), slots=6, context=288, pages=pages, eot_ids=chat.eot_ids, temperature=0.7
    )
    by_problem = search.best_of_n(
        problems,
        engine=engine,
        chat=chat,
        grader=grading.public_grader(FakePool()),
        score=None,
        limits=Limits(turns=3, max_new_tokens=24, max_feedback_tokens=40, context=288),
        n=3,
        searches=searches,
        choices=("random", "pt"),
        key=(0, "search", 0),
    )
    found = {
        (one.task_id, one.index, one.choice): json.dumps(search.encode([one])["turns"])
        for of_problem in by_problem
        for one in of_problem
    }
    assert not engine._scheduler.kept
    return found, engine.counters


def test_a_search_is_to_the_bit_what_it_is_alone_and_reads_nothing_twice(generator):
    problems = [problem(name, f"answer to {name}") for name in "abc"]
    together, counters = really(generator, problems, 2)
    alone, scarce = really(generator, problems[1:2], 1), really(generator, problems, 2, pages=8)[0]
    assert len(alone[0]) == 2
    assert alone[0].items() <= together.items()
    assert scarce == together  # with pages for little more than one conversation
    unique = sum(len(generator[2].first(p.prompt)) for p in problems)
    places = {
        (task_id, index, tuple(turn["completion_ids"]["data"] for turn in json.loads(turns)[:3]))
        for (task_id, index, _), turns in together.items()
    }
    assert len(places) == 6  # nothing passes: each of the six goes on to the last turn
    assert counters.prefilled < unique + 6 * 2 * 2 * 41
