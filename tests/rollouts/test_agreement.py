"""Agreement: further inputs of the tests' own types, programs grouped by what they return."""

import ast
import os
import subprocess
import sys

import numpy as np
import pytest

from mucode_jax.core import keys
from mucode_jax.core.records import Problem, Tests
from mucode_jax.rollouts import agreement, evaluate, grading, inputs, search
from mucode_jax.sandbox import Pool
from tests import fakes


@pytest.fixture(scope="module")
def pool():
    with Pool(workers=1) as opened:
        yield opened


def problem(*statements, name="f", stdio=(), **tests):
    public = Tests(statements, stdio=stdio, **tests)
    return Problem("own", "1", "test", "Write f.", public, entry_point=name)


def arguments(call):
    """(values of the arguments, those passed by name) of a call's text."""
    node = ast.parse(call, mode="eval").body
    assert node.func.id == "f"
    named = {k.arg: ast.literal_eval(k.value) for k in node.keywords}
    return [ast.literal_eval(x) for x in node.args], named


def shape(value):
    """A value's type, with the types of what is in it."""
    if isinstance(value, dict):
        return dict, frozenset(shape(pair) for pair in value.items())
    if isinstance(value, (list, set)):
        return type(value), frozenset(map(shape, value))
    if isinstance(value, tuple):
        return tuple(map(shape, value))
    return type(value)


EXAMPLES = [
    [3, True, -2.5, "abc", None],
    [[4, 1, 9], [(1, "x"), (2, "y")], {5, 6}],
    [{"a": [1, 2], "b": [3, 4]}, [[1, 0], [0, 1]]],
]


@pytest.mark.parametrize("values", EXAMPLES, ids=range(3))
def test_further_inputs_have_the_types_of_the_tests_own(values):
    test = f"assert f({', '.join(map(repr, values))}, key=7) == 1"
    made = inputs.further(problem(test), 40)
    assert len(made) == len(set(made.calls)) == 40 and not made.stdin
    for call in made.calls:
        new, named = arguments(call)
        assert [shape(v) for v in new] == [shape(v) for v in values]
        assert type(named["key"]) is int and list(named) == ["key"]
        assert call not in test


def test_a_number_keeps_its_sign_and_its_size_and_a_text_its_characters():
    for seed in range(50):
        random = keys.rng("test", seed)
        assert 0 <= inputs.varied(40, random, keep_length=False) <= 40
        assert -10 <= inputs.varied(-4, random, keep_length=False) <= 10
        assert 0 <= inputs.varied(2.5, random, keep_length=False) <= 10
        text = inputs.varied("abca", random, keep_length=False)
        assert set(text) <= set("abc") and 2 <= len(text) <= 6
        assert set(inputs.varied("ab cd", random, keep_length=True)) <= set("abcd ")
        assert len(inputs.varied([5, 6, 7], random, keep_length=True)) == 3
        ordered = inputs.varied([1, 4, 9, 30], random, keep_length=False)
        assert ordered == sorted(ordered)


def test_the_same_problem_has_the_same_inputs_and_another_has_others():
    first = problem("assert f([1, 2, 3]) == 6")
    other = Problem("own", "2", "test", "Write f.", first.public, entry_point="f")
    assert inputs.further(first, 8) == inputs.further(first, 8) != inputs.further(other, 8)


def test_sets_of_texts_are_written_alike_in_every_process():
    code = (
        "from mucode_jax.core.records import Problem, Tests\n"
        "from mucode_jax.rollouts import inputs\n"
        'tests = Tests((\'assert f({"ab", "cd", "ef", "gh"}) == 1\',))\n'
        "print(inputs.further(Problem('own', '1', 'test', 'f', tests, entry_point='f'), 20))"
    )
    shown = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(shown) == 1 and "calls=(" in shown.pop()


def test_only_calls_with_plain_values_of_the_problems_function_are_varied():
    made = inputs.further(problem("assert abs(g(f(2), x)) == abs(f(y))", name=""), 8)
    assert made == inputs.Inputs()  # the first name called is g's, with no plain values
    made = inputs.further(problem("assert sorted(f(20)) == sorted(other(5))", name=""), 8)
    assert {arguments(call)[0][0] for call in made.calls} <= set(range(21)) - {20}
    for bare in (
        problem(),
        problem("s = Stack()\ns.push(3)"),
        problem("assert f(*[1]) == 1"),
        problem("f(1) ==="),
    ):
        assert len(inputs.further(bare, 8)) == 0
    assert len(inputs.further(problem("assert f(True) == 1"), 8)) == 1  # there is but one other


def test_standard_input_keeps_its_first_line_and_its_form():
    made = inputs.further(problem(stdio=(("2\n15 ab\n2.5 c\n", "7\n"), ("1\n3 d\n", "1\n"))), 6)
    assert len(made.stdin) == 6 and not made.calls
    for text in made.stdin:
        first, second = text.split("\n")[:2]
        assert first in "21" and second.split()[0].isdecimal() and second.split()[1].isalpha()
        assert text.count("\n") == (3 if first == "2" else 2)
    (single,) = inputs.further(problem(stdio=(("12 5\n", "7\n"),)), 1).stdin
    assert single != "12 5\n" and all(0 <= int(x) <= 12 for x in single.split())


def sizes(pool, of, codes, failed=()):
    turns = [fakes.turn(code, passed=code not in failed) for code in codes]
    runs = agreement.Agreement(pool, 8).submit(of, turns)
    return runs.sizes(turns).tolist()


def test_programs_that_return_the_same_are_one_group_and_exceptions_go_by_class(pool):
    codes = [
        "def f(xs): return max(xs)",
        "list = print\ndef f(xs):\n    print('noise')\n    return sorted(xs)[-1]",
        "def f(xs): return xs[0]",
        "def f(xs): raise KeyError(xs)",
        "def f(xs): return {}[tuple(xs)]",
        "def f(xs): raise ValueError(xs)",
        "def f(xs): yield max(xs)",
        "def f(xs): return iter([max(xs)])",
        "class A: pass\ndef f(xs): return A()",
        "class A: pass\ndef f(xs): return A( )",
        "def f(xs): return {str(x) for x in xs}",
        "def f(xs): return {str(x) for x in reversed(xs)}",
        "import os\ndef f(xs): os._exit(0)",
    ]
    of = problem("assert f([3, 1, 2]) == 3")
    assert sizes(pool, of, codes) == [2, 2, 1, 2, 2, 1, 2, 2, 2, 2, 2, 2, 1]
    assert sizes(pool, of, codes[:3], failed=codes[2:]) == [2, 2, 0]
    assert sizes(pool, of, [codes[2], codes[0], codes[2]]) == [2, 1, 2]  # copies count


def test_the_setup_of_the_public_tests_is_there(pool):
    of = problem("assert f(2) == 4", setup="def double(x):\n    return 2 * x")
    codes = ["def f(x): return double(x)", "def f(x): return x + x", "def f(x): return 4"]
    assert sizes(pool, of, codes) == [2, 2, 1]


def test_programs_that_read_standard_input_are_grouped_by_what_they_print(pool):
    of = problem(stdio=(("12 5\n", "17\n"),))
    codes = [
        "print(sum(map(int, input().split())))",
        "a, b = input().split()\nprint(int(a) + int(b), end='')",
        "print(17)",
        "input()\nprint(17)",
        "input() + 1",
    ]
    assert sizes(pool, of, codes) == [2, 2, 2, 2, 1]


def test_one_program_or_a_problem_without_inputs_executes_nothing():
    pool = fakes.FakePool()
    agree = agreement.Agreement(pool, 8)
    alike = [fakes.turn("ok", passed=True)] * 2 + [fakes.turn("bad")]
    assert agree.submit(problem("assert f(1) == 1"), alike).sizes(alike).tolist() == [2, 2, 0]
    several = [*alike, fakes.turn("ok too", passed=True)]
    classes = agreement.Agreement(pool, 8)
    assert classes.submit(problem("s = Stack()"), several) is None
    assert pool.programs == []


def test_a_lost_sandbox_is_no_answer():
    turns = [fakes.turn("infra", passed=True), fakes.turn("ok", passed=True)]
    runs = agreement.Agreement(fakes.FakePool(), 8).submit(problem("assert f(1) == 1"), turns)
    with pytest.raises(grading.InfrastructureError):
        runs.sizes(turns)


# In a search --------------------------------------------------------------------------------------

# All pass f(2) == 4; the first two are the same function, the third is the verifier's favourite.
CANDIDATES = [
    "def f(x): return x * x",
    "def f(x): return x ** 2",
    "def f(x): return x + 2",
    "def f(x): return 1",
]
SCORES = {"x * x": 1.0, "x ** 2": 2.0, "x + 2": 3.0, "return 1": 4.0}


def score(texts):
    shown = [fakes.FakeChat().text(text) for text in texts]
    return np.array([next(s for c, s in SCORES.items() if c in t) for t in shown], np.float32)


def searched(pool, of, scored=True, **settings):
    (found,) = search.best_of_n(
        [of],
        engine=fakes.FakeEngine(lambda request, sample: CANDIDATES[sample]),
        chat=fakes.FakeChat(),
        grader=grading.public_grader(pool),
        score=score if scored else None,
        limits=search.Limits(turns=2, max_new_tokens=60, max_feedback_tokens=60, context=400),
        n=4,
        searches=1,
        choices=["pt+lv", "agree"] if scored else ["agree"],
        key=(0, "search", 0),
        **settings,
    )
    return found


def chosen(one):
    return one.turns[-1].candidates[one.turns[-1].chosen].code


def test_the_largest_group_comes_before_the_score_and_the_score_decides_within_it(pool):
    of = problem("assert f(2) == 4")
    by_score, by_group = searched(pool, of, agreement=agreement.Agreement(pool, 8))
    assert (chosen(by_score), chosen(by_group)) == (CANDIDATES[2], CANDIDATES[1])
    assert by_group.turns[0].agreeing.tolist() == [2, 2, 1, 0]
    assert by_score.turns[0].agreeing is None
    (alone,) = searched(pool, of, scored=False, agreement=agreement.Agreement(pool, 8))
    assert chosen(alone) in CANDIDATES[:2]
    back = search.decode(search.encode([by_score, by_group]))
    assert back[0].turns[0].agreeing is None
    assert back[1].turns[0].agreeing.tolist() == [2, 2, 1, 0]

    read = {"choice": "agree", "turns": 2, "protocol": "deployable"}
    labels = [[[True, True, False, False]]]
    entry = evaluate.search_evaluation([by_group], labels, **read)
    assert entry["agreement"] == {"turns": 1, "without_inputs": 0, "groups": 2.0}
    assert entry["executions"] == 4 + 3 and entry["accuracy"] == 1


def test_without_further_inputs_all_that_pass_are_one_group_and_it_is_counted(pool):
    of = problem("x = 2\nassert f(x) == 4")
    _, one = searched(pool, of, agreement=agreement.Agreement(pool, 8))
    assert chosen(one) == CANDIDATES[2] and one.turns[0].agreeing is None
    entry = evaluate.search_evaluation(
        [one], [[[True, True, False, False]]], choice="agree", turns=2, protocol="deployable"
    )
    assert entry["agreement"] == {"turns": 1, "without_inputs": 1, "groups": None}
    assert entry["executions"] == 4


def test_agree_without_what_executes_further_inputs_is_refused(pool):
    with pytest.raises(ValueError, match="'agree' executes further inputs"):
        searched(pool, problem("assert f(2) == 4"))
