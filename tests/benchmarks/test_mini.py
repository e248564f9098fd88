"""The embedded suite keeps its promises: determinism, apart splits, tests that bite."""

import collections
import functools
import subprocess
import sys

import numpy as np
import pytest

from mucode_jax import benchmarks
from mucode_jax.benchmarks import mini
from mucode_jax.benchmarks.mini import corpus, tasks
from mucode_jax.benchmarks.mini.concepts import CONCEPTS, PLACES
from mucode_jax.core import keys
from mucode_jax.models import huggingface

# The test split is left to the final comparison: what is asserted of quality is asserted of these.
SPLIT, COUNT = "validation", 150


@functools.cache
def made(split=SPLIT, seed=0, count=COUNT, private=True):
    return [mini.task(split, seed, index, private=private) for index in range(count)]


def passes(program, statements):
    """Whether a program of the suite's own passes its asserts, run as a user would run them."""
    namespace = {}
    try:
        exec(program, namespace)
        for statement in statements:
            exec(statement, namespace)
    except Exception:
        return False
    return True


@pytest.mark.parametrize("split", mini.SPLITS)
def test_same_seed_gives_the_same_problems_and_a_larger_size_only_adds(split):
    small = benchmarks.load("mini", split, seed=3, size=5)
    large = benchmarks.load("mini", split, seed=3, size=9)
    assert small.problems == large.problems[:5]
    assert len(large.problems) == 9 and large.split == split
    assert {p.task_id for p in large.problems} == set(large.private) == set(large.solutions)
    assert dict(large.private).items() >= dict(small.private).items()


def test_another_process_with_another_hash_seed_gives_the_same_problems():
    script = (
        "from mucode_jax.benchmarks import mini\n"
        "print(repr(mini.load('train', size=12, seed=5)))"
        "\nfrom mucode_jax.benchmarks.mini import corpus\n"
        "print(list(corpus.conversations(30, 5)))"
    )
    out = [
        subprocess.run(
            [sys.executable, "-c", script],
            env={"PYTHONHASHSEED": hash_seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    ]
    assert out[0] == out[1] and "train/5/11" in out[0]


def test_seeds_splits_and_indices_give_different_problems():
    prompts = [
        task.problem.prompt
        for split, seed in (("train", 0), ("train", 1), ("train", 2), ("validation", 0))
        for task in made(split, seed, 40, private=False)
    ]
    assert len(set(prompts)) == len(prompts)
    ids = [
        task.problem.task_id for seed in (0, 1) for task in made("train", seed, 40, private=False)
    ]
    assert len(set(ids)) == len(ids)


def test_splits_share_no_combination_of_concepts():
    found = {
        split: {
            task.draft.combination
            for seed in (0, 1)
            for task in made(split, seed, 60, private=False)
        }
        for split in mini.SPLITS
    }
    for split, combinations in found.items():
        assert {tasks.owner(name) for name in combinations} == {split}
        assert len(combinations) > 100


def test_shares_of_combinations_are_as_declared():
    owners = collections.Counter(tasks.owner(f"combination {i}") for i in range(20_000))
    for split, share in tasks.SHARES.items():
        assert owners[split] / 200 == pytest.approx(share, abs=1.0)


def test_reference_solutions_pass_their_public_and_private_tests():
    for task in made():
        statements = [*task.problem.public.statements, *task.private.statements]
        assert len(task.problem.public.statements) == 1 and len(task.private.statements) == 4
        assert passes(task.solution, statements), task


def test_every_planted_wrong_variant_fails_the_private_tests():
    for task in made()[:60]:
        assert len(task.wrong) >= 2
        for variant in task.wrong:
            assert not passes(variant, task.private.statements), (task.problem.prompt, variant)


def test_public_test_alone_does_not_tell_all_wrong_variants():
    missed = [
        any(passes(variant, task.problem.public.statements) for variant in task.wrong)
        for task in made()[:100]
    ]
    assert 0.15 < np.mean(missed) < 0.6


def test_private_tests_are_not_trivial():
    for task in made():
        calls = [s.removeprefix("assert ").split(" == ") for s in task.private.statements]
        arguments = {call for call, _ in calls} | {
            task.problem.public.statements[0].removeprefix("assert ").split(" == ")[0]
        }
        assert len(arguments) == 5  # no input twice
        assert len({expected for _, expected in calls}) >= 2
        assert not any(expected in ("[]", "''") for _, expected in calls)


def test_an_ambiguous_problem_is_decided_by_its_public_test():
    ambiguous = 0
    for task in made():
        for place, choice in enumerate(task.draft.choices):
            if choice and len(choice.concept.meanings) > 1:
                ambiguous += 1
                pieces = [c and c.meaning for c in task.draft.choices]
                pieces[place] = choice.others[0]
                other = task.draft.code(tuple(pieces))
                assert not passes(other, task.problem.public.statements)
    assert 0.03 < ambiguous / COUNT < 0.2


def test_concepts_are_named_once_and_every_piece_of_code_is_python():
    assert len({concept.name for concept in CONCEPTS}) == len(CONCEPTS)
    for concept in CONCEPTS:
        assert concept.place in PLACES and concept.words and concept.meanings
        for piece in (*concept.meanings, *concept.mistakes):
            for mark, value in (("{L}", "xs"), ("{k}", "3"), ("{c}", "a"), ("{d}", "b")):
                piece = piece.replace(mark, value)
            compile(piece, concept.name, "eval")


def test_unknown_split_and_empty_size_say_what_would_be_right():
    with pytest.raises(ValueError, match="no split 'dev'; one of train, validation, test"):
        mini.load("dev")
    with pytest.raises(ValueError, match="at least 1"):
        mini.load("train", size=0)
    with pytest.raises(ValueError, match="it takes at most 100000 problems"):
        benchmarks.load("mini", "train", size=10**11)


def test_corpus_holds_conversations_of_pretraining_combinations_that_end_at_a_pass():
    tries = fixes = 0
    for task_id, messages in corpus.conversations(200, 11):
        problem = mini.task(*_parts(task_id), private=False)
        assert problem.problem.split == "pretrain"
        assert messages[0] == problem.problem.prompt and len(messages) in (2, 4, 6)
        for turn in range(1, len(messages), 2):
            passed = passes(messages[turn], problem.problem.public.statements)
            assert passed == (corpus.summary(problem, messages[turn]) == "")
            last = turn == len(messages) - 1
            assert last or not passed
            if not last:
                assert messages[turn + 1] == corpus.summary(problem, messages[turn])
                tries += 1
                fixes += messages[turn + 2] == problem.solution
    assert tries > 100
    low, high = min(corpus.CORRECTED.values()), max(corpus.CORRECTED.values())
    assert low < fixes / tries < high + 0.15


def _parts(task_id):
    split, seed, index = task_id.split("/")
    return split, int(seed), int(index)


def test_feedback_in_the_corpus_is_worded_as_at_run_time():
    task = mini.task("pretrain", 0, 0, private=False)
    name = task.problem.entry_point
    head = task.solution.split("\n")[0]
    call = task.problem.public.statements[0].removeprefix("assert ").split(" == ")[0]
    told = corpus.summary(task, f"{head}\n    return 'no'")
    assert told == f"{call} returned 'no', expected {task.expected!r}"
    assert told.startswith(f"{name}(")
    assert (
        corpus.summary(task, f"{head}\n    return 1 / 0") == "ZeroDivisionError: division by zero"
    )
    assert corpus.summary(task, task.solution) == ""


def test_attempts_are_sometimes_right_and_often_wrong():
    task = made("pretrain", 0, 40, private=False)
    right = [
        corpus.attempt(keys.rng("attempt", i), problem) == problem.solution
        for i, problem in enumerate(task * 5)
    ]
    assert 0.1 < np.mean(right) < 0.6


@pytest.fixture(scope="module")
def tokenizer():
    return huggingface.load_tokenizer(huggingface.resolve("mini"))


def test_prompts_and_conversations_are_short_in_the_shipped_tokenizer(tokenizer):
    def length(*messages):
        roles = ("user", "assistant")
        chat = [{"role": roles[i % 2], "content": text} for i, text in enumerate(messages)]
        text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        return len(tokenizer.encode(text, add_special_tokens=False))

    prompts = [
        length(task.problem.prompt) for task in made() + made("train", 0, 150, private=False)
    ]
    assert max(prompts) <= 64 and np.quantile(prompts, 0.95) <= 60
    talks = [length(*messages) for _, messages in corpus.conversations(300, 12)]
    assert np.quantile(talks, 0.99) <= 256


def test_shipped_tokenizer_gives_back_any_text(tokenizer):
    for text in (*(task.solution for task in made()), "naïve — 日本\n\tx\u0000 '\"\\", "a  b\r\n"):
        assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text
