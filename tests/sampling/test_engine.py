"""The engine: what comes out depends on the request alone, and costs no more than it must."""

import gc

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mucode_jax.models import huggingface, llama
from mucode_jax.sampling import sampler
from mucode_jax.sampling.engine import Engine, Request
from tests.models import tiny

CONFIG = tiny.CONFIGS["llama3"]
PARAMS = tiny.params(CONFIG)
EOT = (1, 2)


class Clock:
    """Time that passes only when told."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def engine(slots=6, config=CONFIG, params=PARAMS, **settings):
    settings = {"context": 96, "temperature": 0.8, "steps": 4, "refill": 2} | settings
    return Engine(config, params, slots=slots, eot_ids=EOT, **settings)


def ids(seed, length):
    return np.random.default_rng(seed).integers(3, CONFIG.vocab_size, length).astype(np.int32)


def keys(seed, n):
    return np.random.default_rng([seed, 99]).integers(0, 2**32, (n, 2), dtype=np.uint32)


def drain(e):
    out = {}
    while e.pending:
        for done in e.step():
            out[done.request_id, done.index] = done
    return out


def converse(e, conversations, choose=lambda n: 0, away=lambda: False, clock=None):
    """Three turns of each conversation; returns {(name, turn, index): (ids, logprobs)}.

    choose(n) picks which of n conversations or returned completions comes next; away() says that
    a completion's caller is not back yet.
    """
    out, prompts, returned = {}, {}, []
    left = list(conversations)

    def submit(name, turn, prompt, n, parent):
        prompts[name, turn] = prompt
        key = keys(1000 * name + turn, n)
        e.submit(Request((name, turn), prompt, key, 9, parent=parent))

    while left or e.pending or returned:
        if left and (len(left) == len(conversations) or not away()):
            name = left.pop(choose(len(left)))
            submit(name, 0, ids(name, 2 + 5 * name), 3, None)
        for done in e.step():
            out[(*done.request_id, done.index)] = done.ids.tolist(), done.logprobs.tobytes()
            returned.append(done)
        if clock:
            clock.now += 0.01
        for _ in range(len(returned)):
            done = returned.pop(choose(len(returned)))
            if away() and (e.pending or left):
                returned.append(done)
                continue
            name, turn = done.request_id
            handle = (done.request_id, done.index)
            if done.index == 1 - turn % 2 and turn < 2:
                text = ids(50 + name + turn, 4 + 3 * name)
                prompt = np.concatenate([prompts[name, turn], done.ids, text])
                submit(name, turn + 1, prompt, 2, handle)
            e.release(handle)
    return out


@pytest.fixture(scope="module")
def alone():
    """Every conversation with an engine of its own."""
    return {k: v for name in range(4) for k, v in converse(engine(), [name]).items()}


@settings(max_examples=25, deadline=None)
@given(st.randoms(use_true_random=False), st.sampled_from([None, 3, 4, 6]))
def test_order_neighbours_delays_and_pages_change_no_bit(alone, random, pages):
    e = engine(pages=pages, clock=(clock := Clock()))
    busy = random.random()
    out = converse(
        e, range(4), choose=random.randrange, away=lambda: random.random() < busy, clock=clock
    )
    assert out == alone


def test_what_was_given_away_comes_back_by_replay_with_the_same_bits(alone):
    e = engine(pages=4)
    turns = iter(range(10**6))
    out = converse(e, range(4), away=lambda: next(turns) % 9 != 0)
    assert e.counters.evictions > 0
    assert e.counters.replayed > 0
    assert out == alone


_hidden = jax.jit(llama.hidden, static_argnums=0)
_draw = jax.jit(sampler.draw)


def reference(prompt, key, limit, temperature, config=CONFIG, params=PARAMS, length=96):
    """One sample without a cache and without neighbours: the whole text read anew for each token.

    Also whether a choice was so close that the last bits of the logits decide it.
    """
    text, drawn, close = prompt.tolist(), [], False
    while len(drawn) < limit:
        row = np.zeros((1, length), np.int32)
        row[0, : len(text)] = text
        hidden = _hidden(config, params, row, positions=np.arange(length, dtype=np.int32)[None])
        logits = llama.logits(config, params, hidden[:, len(text) - 1])
        at, heat = np.asarray([len(text)], np.int32), np.asarray([temperature], np.float32)
        token = int(_draw(logits, key[None], at, heat)[0][0])
        nudged = logits * (1 + 1e-5), logits * (1 - 1e-5)
        close |= any(int(_draw(x, key[None], at, heat)[0][0]) != token for x in nudged)
        drawn.append(token)
        text.append(token)
        if token in EOT:
            break
    return drawn + ([EOT[0]] if drawn[-1] not in EOT else []), close


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_tokens_equal_an_uncached_unbatched_reference_whatever_the_slots_and_mesh(temperature):
    prompts = {name: ids(name, 3 + 7 * name) for name in range(4)}
    expected, close = {}, 0
    for name, prompt in prompts.items():
        for index, key in enumerate(keys(name, 2)):
            tokens, near = reference(prompt, key, 12, temperature)
            close += near
            expected[name, index] = tokens
    assert close == 0  # these seeds hold no ties, so that equality is exact
    mesh = jax.sharding.Mesh(
        np.asarray(jax.devices()[:4]).reshape(2, 1, 2),
        ("data", "fsdp", "tensor"),
        axis_types=(jax.sharding.AxisType.Auto,) * 3,
    )
    for slots, split in ((6, None), (2, None), (6, mesh)):
        e = engine(slots, mesh=split, temperature=temperature)
        for name, prompt in prompts.items():
            e.submit(Request(name, prompt, keys(name, 2), 12, keep=False))
        assert {k: done.ids.tolist() for k, done in drain(e).items()} == expected


@pytest.mark.parametrize("name", list(tiny.CONFIGS))
def test_greedy_equals_torch_transformers_generate(name, tmp_path):
    torch = pytest.importorskip("torch", reason="needs torch (extra `parity`)")
    import transformers

    config = tiny.CONFIGS[name]
    params = tiny.params(config, seed=3)
    huggingface.save_generator(params, config, tmp_path)
    model = transformers.LlamaForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    e = engine(config=config, params=params, temperature=0.0)
    expected = {}
    for i in range(6):
        prompt = ids(i, 2 + 4 * i) % config.vocab_size
        e.submit(Request(i, prompt, keys(i, 1), 20, keep=False))
        with torch.no_grad():
            out = model.generate(
                torch.tensor(prompt[None]).long(),
                attention_mask=torch.ones((1, len(prompt)), dtype=torch.long),
                max_new_tokens=20,
                do_sample=False,
                eos_token_id=list(EOT),
                pad_token_id=0,
            )
        expected[i] = out[0, len(prompt) :].tolist()
    for (i, _), done in drain(e).items():
        assert done.ids[: len(done.ids) - done.truncated].tolist() == expected[i]


def test_log_probabilities_are_those_of_the_drawn_distribution():
    prompt = ids(5, 20)
    e = engine()
    e.submit(Request("a", prompt, keys(5, 1), 10, keep=False))
    done = drain(e)["a", 0]
    row = np.zeros((1, 96), np.int32)
    text = np.concatenate([prompt, done.ids])
    row[0, : len(text)] = text
    hidden = _hidden(CONFIG, PARAMS, row, positions=np.arange(96, dtype=np.int32)[None])
    wanted = jax.nn.log_softmax(llama.logits(CONFIG, PARAMS, hidden[0]) / 0.8)
    drawn = len(done.ids) - done.truncated
    wanted = np.asarray(wanted)[np.arange(19, 19 + drawn), done.ids[:drawn]]
    np.testing.assert_allclose(done.logprobs[:drawn], wanted, atol=1e-4)


def test_samples_of_a_prompt_share_one_prefill_and_a_turn_reads_only_its_new_text():
    e = engine(slots=3)
    prompt = ids(0, 30)
    e.submit(Request("first", prompt, keys(0, 7), 5))  # more samples than slots
    out = {}
    while e.pending:
        for done in e.step():
            out[done.index] = done
            if done.index != 6:
                e.release(("first", done.index))
    assert sorted(out) == list(range(7))
    assert e.counters.prefilled == 29
    following = np.concatenate([prompt, out[6].ids, ids(1, 10)])
    before = e.counters
    e.submit(Request("second", following, keys(1, 2), 5, parent=("first", 6)))
    e.release(("first", 6))
    drain(e)
    # The last drawn token was never read; the last token of the prompt is read by decoding.
    unread = 1 + out[6].truncated
    assert e.counters.prefilled - before.prefilled == unread + 10 - 1
    assert e.counters.decoded == sum(len(d.ids) - d.truncated for d in out.values()) + (
        e.counters.decoded - before.decoded
    )


@pytest.mark.parametrize("length", [62, 63, 64, 65, 66, 80])
def test_the_fewest_pages_do_for_samples_that_fill_the_context(length):
    """Prompts that end before, at and behind the end of a page."""
    few, many = (engine(slots=3, pages=pages) for pages in (3, 20))
    found = []
    for e in (few, many):
        e.submit(Request("a", ids(1, length), keys(1, 3), 96 - length, keep=False))
        found.append({handle: done.ids.tolist() for handle, done in drain(e).items()})
    assert found[0] == found[1]
    assert max(len(tokens) for tokens in found[0].values()) > 5


def test_a_completion_ends_at_any_end_id_or_is_closed_at_its_limit():
    e = engine(temperature=3.0)
    for i in range(40):
        e.submit(Request(i, ids(i, 4), keys(i, 1), 1 + i, keep=False))
    ends = set()
    for (i, _), done in drain(e).items():
        assert len(done.ids) == len(done.logprobs)
        assert not set(done.ids[:-1].tolist()) & set(EOT)
        if done.truncated:
            assert len(done.ids) == 1 + i + 1
            assert done.ids[-1] == EOT[0]
            assert done.logprobs[-1] == 0
        else:
            assert len(done.ids) <= 1 + i
            ends.add(int(done.ids[-1]))
    assert ends == set(EOT)


def test_there_are_three_programs_whatever_the_lengths():
    e = engine(context=64)
    for i in range(60):
        e.submit(Request(i, ids(i, 1 + i), keys(i, 2), 4, keep=False))
    drain(e)
    assert e.counters.programs == 3  # prefill, copy, decode


def test_nothing_is_left_behind_by_finished_requests():
    e = engine()

    def rounds(first, last):
        for i in range(first, last):
            e.submit(Request(i, ids(i, 9), keys(i, 2), 3))
            for handle in drain(e):
                e.release(handle)

    rounds(0, 10)
    gc.collect()
    arrays, objects = len(jax.live_arrays()), len(gc.get_objects())
    rounds(10, 110)
    gc.collect()
    assert len(jax.live_arrays()) == arrays
    assert len(gc.get_objects()) < objects + 200


GOOD = {"id": "x", "prompt_ids": ids(0, 10), "keys": keys(0, 1), "max_new_tokens": 5}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"max_new_tokens": 87},
            "prompt of 10 tokens and 87 new ones do not fit the context of 96",
        ),
        ({"max_new_tokens": 0}, "max_new_tokens 0"),
        ({"prompt_ids": np.zeros(0, np.int32)}, "at least one id"),
        ({"prompt_ids": np.asarray([64])}, "outside 0 … 63"),
        ({"keys": np.zeros((0, 2), np.uint32)}, "uint32"),
        ({"parent": ("nobody", 0)}, r"parent \('nobody', 0\) is not kept"),
        ({"parent": ("kept", 0)}, "does not go on from"),
        ({"id": "kept"}, "pending or kept"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused_and_changes_nothing(change, message):
    e = engine()
    e.submit(Request("kept", ids(1, 5), keys(0, 1), 3))
    drain(e)
    with pytest.raises(ValueError, match=message):
        e.submit(Request(**GOOD | change))
    assert e.pending == 0
    e.submit(Request(**GOOD))
    assert len(drain(e)) == 1


def test_engine_settings_that_make_no_sense_are_refused():
    for bad in (
        {"context": 1000},
        {"top_p": 0.0},
        {"slots": 0},
        {"temperature": float("nan")},
        {"temperature": -1.0},
        {"top_k": -1},
        {"pages": 2},
    ):
        with pytest.raises(ValueError):
            engine(**bad)
    e = engine()
    with pytest.raises(ValueError, match="not kept"):
        e.release(("nobody", 0))
