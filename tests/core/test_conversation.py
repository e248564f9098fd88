"""Text and ids: what is sampled is what is stored, from the prompt to a program's outcome."""

import copy

import numpy as np
import pytest

from mucode_jax.algorithms import common
from mucode_jax.benchmarks import load
from mucode_jax.core.conversation import Chat, shorten
from mucode_jax.core.records import Grade, Rollout, Tests, Turn
from mucode_jax.models import huggingface, llama3_tokenizer
from mucode_jax.sandbox import Pool


@pytest.fixture(scope="module")
def tokenizer():
    return huggingface.load_tokenizer(huggingface.resolve("mini"))


@pytest.fixture(scope="module")
def chat(tokenizer):
    return Chat(tokenizer, huggingface.eot_ids(huggingface.resolve("mini")))


@pytest.fixture(scope="module")
def llama3(data_dir, tmp_path_factory):
    directory = tmp_path_factory.mktemp("llama3")
    llama3_tokenizer.build(data_dir / "llama3", directory)
    return huggingface.load_tokenizer(directory)


RIGHT = "def f(x):\n    return x\n"


def test_whatever_a_generator_writes_has_an_outcome(chat):
    """From ids to a grade: each through the tokenizer, the extraction and the sandbox."""
    expected = {
        "": "error",
        " \n ": "error",
        "Here is the function you asked for.": "error",
        f"```python\n{RIGHT}```": "pass",
        f"```python\n{RIGHT}": "pass",  # never closed
        f"```python\n{RIGHT}```\n```python\nraise ValueError\n```": "pass",
        f"```\n```\n```python\n{RIGHT}```": "pass",  # an empty block counts for nothing
        **{char * 1000: "error" for char in ("a", "(", "9", "`", "-", "\ufffd", "\0")},
        **{char * 1000: "error" for char in (" ", "\n", "\t", "#")},  # empty programs
        '"' * 1000: "error",
    }
    with Pool(workers=1) as pool:
        codes = [chat.code(chat.text(chat.completion(text))) for text in expected]
        tests = Tests(("assert f(1) == 1",))
        found = [pool.submit(code, tests).result(timeout=120) for code in codes]
    assert [outcome.status for outcome in found] == list(expected.values())
    assert all(outcome.feedback for outcome in found if outcome.status != "pass")


def test_pieces_of_broken_utf8_are_an_error_of_the_program(chat, tokenizer):
    halves = [tokenizer.encode(char, add_special_tokens=False)[0] for char in "éß漢"]
    text = chat.text(np.array([*halves, *halves]))
    assert "\ufffd" in text
    with Pool(workers=1) as pool:
        outcome = pool.submit(chat.code(text), Tests(("assert f(1) == 1",))).result(timeout=120)
    assert outcome.status == "error" and "invalid" in outcome.summary


def templated(tokenizer, template):
    """The tokenizer with another chat template."""
    other = copy.copy(tokenizer)
    other.chat_template = template
    return other


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (
            "{% for m in messages %}{% if m.role == 'assistant' %}{{ m.content }}<|end|>"
            "{% endif %}{% endfor %}",
            "drops a message of the user",
        ),
        (
            "{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}",
            "drops a message of the assistant",
        ),
        ("{{ messages[7].content.strip() }}", "cannot be used"),
        ("{% for m in messages %}{{ m.content }}", "cannot be used"),
        ("{% for m in messages %}{{ m.content }}|{% endfor %}", "none of its end-of-turn tokens"),
    ],
)
def test_a_template_that_would_lose_text_is_refused(tokenizer, template, said):
    with pytest.raises(ValueError, match=said):
        Chat(templated(tokenizer, template))


def test_a_template_that_drops_the_system_message_takes_nothing_away(tokenizer, chat):
    dropping = "{% for m in messages if m.role != 'system' %}" + (
        "{% if m.role == 'user' %}<|user|>{{ m.content }}{% else %}<|assistant|>{{ m.content }}"
        "<|end|>{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    assert Chat(templated(tokenizer, dropping)).first("f").tolist() == chat.first("f").tolist()


def test_long_text_is_shortened_in_its_middle():
    assert shorten("abc", 3) == "abc"
    assert shorten("a" * 50, 6) == ""  # no room for the mark
    short = shorten("a" * 50 + "b" * 50, 20)
    assert len(short) == 20 and short.startswith("aaa") and short.endswith("bbb")
    assert "[...]" in short


def test_a_conversation_in_pieces_is_the_conversation_rendered_whole(chat, tokenizer):
    answer = "def f(xs):\n    return sum(xs)"
    pieces = [chat.first("f: the sum"), chat.completion(answer), chat.next("f([1]) returned 2")]
    whole = tokenizer.apply_chat_template(
        [
            {"role": "user", "content": "f: the sum"},
            {"role": "assistant", "content": answer},
            {"role": "user", "content": "f([1]) returned 2"},
        ],
        tokenize=False,
        add_generation_prompt=True,
    )
    ids = tokenizer.encode(whole, add_special_tokens=False)
    assert np.concatenate(pieces).tolist() == ids


def test_the_same_with_the_llama_3_template_on_every_day(llama3):
    chat = Chat(llama3, [128001, 128008, 128009])
    assert llama3.convert_ids_to_tokens(chat.eot_ids[0]) == "<|eot_id|>"
    assert set(chat.eot_ids) == {128001, 128008, 128009}
    answer = "```python\nx = 1\n```"
    pieces = [chat.first("Write x."), chat.completion(answer), chat.next("It failed.")]
    whole = llama3.apply_chat_template(
        [
            {"role": "user", "content": "Write x."},
            {"role": "assistant", "content": answer},
            {"role": "user", "content": "It failed."},
        ],
        tokenize=False,
        add_generation_prompt=True,
        date_string="26 Jul 2024",
    )
    assert np.concatenate(pieces).tolist() == llama3.encode(whole, add_special_tokens=False)


@pytest.mark.parametrize(
    ("date", "written"),
    [
        ("date_string", "26 Jul 2024"),
        ("strftime_now('%d %b %Y')", "26 Jul 2024"),
        ('strftime_now("%Y-%m-%d")', "2024-07-26"),
        ("strftime_now('%A, %B %-d, %Y; %H:%M')", "Friday, July 26, 2024; 00:00"),
        (
            "strftime_now('%x %X, %c, %D, %-I %p')",
            "07/26/24 00:00:00, Fri Jul 26 00:00:00 2024, 07/26/24, 12 AM",
        ),
    ],
)
def test_a_template_that_writes_the_date_writes_the_same_one_every_day(date, written, tokenizer):
    before = "{%- if strftime_now is defined %}on{% endif %}\n  {% set x = 1 %}\n"
    chat = Chat(templated(tokenizer, f"{before}{{{{ {date} }}}}{tokenizer.chat_template}"))
    assert chat.text(chat.first("f")) == f"on{written}f"


def test_stripped_text_and_stored_ids_do_not_drift_apart(llama3):
    """The template strips contents; a completion that ends in blanks is stored as sampled."""
    chat = Chat(llama3)
    sampled = chat.completion("x = 1\n\n")
    prompt, feedback = chat.first("a"), chat.next("b")
    none = np.zeros(len(sampled), np.float32)
    turns = (
        Turn(prompt, sampled, none, False, "x = 1", Grade("fail")),
        Turn(feedback, sampled, none, False, "x = 1", Grade("fail")),
    )
    state = Rollout("b", "t", 0, turns).state(1)
    assert state.tolist() == [*prompt, *sampled, *feedback]
    assert chat.text(sampled) == "x = 1\n\n"


def test_the_golden_mask_of_one_conversation(chat, tokenizer):
    """Supervised are the target's ids and its end of turn; nothing of the prompt, no other turn."""
    wrong, right = "def f(xs):\n    return max(xs)", "def f(xs):\n    return sum(xs)"
    prompt = chat.first("f: the sum of the items\nassert f([1, 2]) == 3")
    feedback = chat.next("f([1, 2]) returned 2, expected 3")
    state = np.concatenate([prompt, chat.completion(wrong), feedback])
    example = common.example("t", state, chat.completion(right))
    shown = [(tokenizer.decode([i]), w) for i, w in zip(example.ids, example.weights, strict=True)]
    supervised = "".join(text for text, w in shown if w)
    unsupervised = "".join(text for text, w in shown if not w)
    eot = tokenizer.decode([chat.eot_ids[0]])
    assert supervised == right + eot
    assert wrong + eot in unsupervised and "expected 3" in unsupervised
    assert example.weights[-1] == 1 and example.ids[-1] == chat.eot_ids[0]
    assert example.weights.sum() == len(chat.completion(right))


def test_feedback_is_shortened_until_it_fits(chat):
    full = chat.next("x" * 400)
    ids = chat.next_within("{summary}", {"summary": "x" * 400}, 40)
    assert len(ids) <= 40 < len(full)
    with pytest.raises(ValueError, match="max_feedback_tokens=1"):
        chat.next_within("{summary}", {"summary": "x"}, 1)


def test_feedback_text_that_looks_like_a_template_is_shown_as_it_is(chat):
    ids = chat.next_within("{feedback}", {"feedback": "f() returned {'a': 1}"}, 100)
    assert "{'a': 1}" in chat.text(ids)


def test_invalid_utf8_becomes_a_mark_and_does_not_raise(llama3):
    chat = Chat(llama3)
    half = llama3.encode("é", add_special_tokens=False)[:1]
    assert isinstance(chat.text(np.array([*half, 223])), str)


def test_a_tokenizer_without_template_or_end_of_turn_is_refused(tokenizer):
    class Bare:
        chat_template = None
        name_or_path = "somewhere"

    with pytest.raises(ValueError, match="somewhere has no chat template"):
        Chat(Bare())

    class Open:
        chat_template = "x"
        name_or_path = "somewhere"
        eos_token_id = None

    with pytest.raises(ValueError, match="no end-of-turn token"):
        Chat(Open())


def test_mini_conversations_fit_the_quickstarts_limits(chat):
    problems = load("mini", "validation", size=300).problems
    assert max(len(chat.first(p.prompt)) for p in problems) <= 60
