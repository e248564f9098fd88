"""Scores of texts: the same alone and in company, each text once, and the command."""

import json

import jax
import numpy as np
import pytest

from mucode_jax import score
from mucode_jax.core.conversation import Chat
from mucode_jax.models import huggingface, sharding, verifier
from mucode_jax.rollouts import scorer


@pytest.fixture(scope="module")
def mini_verifier(tmp_path_factory):
    """A verifier made from the embedded generator with a fresh head, in a directory."""
    base = huggingface.resolve("mini")
    config = huggingface.read_config(base)
    generator = huggingface.load_generator(base, config)
    params = verifier.from_generator(config, generator, jax.random.key(0))
    directory = tmp_path_factory.mktemp("verifier")
    huggingface.save_verifier(params, config, directory, tokenizer_from=base)
    return config, params, directory


def texts(count, longest, seed=0):
    generator = np.random.default_rng(seed)
    return [
        generator.integers(4, 500, size=generator.integers(1, longest)).astype(np.int32)
        for _ in range(count)
    ]


def test_a_text_has_the_same_score_alone_and_in_company_bit_for_bit(mini_verifier):
    config, params, _ = mini_verifier
    some = texts(20, 100)
    together = scorer.Scorer(config, params, rows=8)(some)
    alone = [scorer.Scorer(config, params, rows=8)([text])[0] for text in some[:5]]
    np.testing.assert_array_equal(together[:5], alone)
    shuffled = scorer.Scorer(config, params, rows=8)(some[::-1])[::-1]
    np.testing.assert_array_equal(together, shuffled)


def test_the_score_is_the_models_at_the_last_token(mini_verifier):
    config, params, _ = mini_verifier
    text = texts(1, 50)[0]
    expected = verifier.scores(
        config,
        params,
        text[None],
        positions=np.arange(len(text))[None],
        segment_ids=None,
        ends=np.array([[len(text) - 1]]),
    )[0, 0]
    assert scorer.Scorer(config, params)([text])[0] == pytest.approx(float(expected), abs=1e-5)


def test_rows_are_a_multiple_of_what_the_mesh_splits_them_into():
    mesh = sharding.make_mesh(2, 4, 1)
    assert scorer.batch_shape(100) == (64, 128) and scorer.batch_shape(20_000) == (1, 32768)
    assert scorer.batch_shape(100, mesh=mesh) == (64, 128)
    assert scorer.batch_shape(20_000, mesh=mesh) == (8, 32768)


def test_identical_texts_are_scored_once(mini_verifier, monkeypatch):
    config, params, _ = mini_verifier
    calls = []
    real = scorer._scores
    monkeypatch.setattr(scorer, "_scores", lambda *a: calls.append(1) or real(*a))
    score_of = scorer.Scorer(config, params, rows=4)
    text = texts(1, 50)[0]
    assert len(set(score_of([text] * 10).tolist())) == 1
    score_of([text])
    assert len(calls) == 1


def test_the_command_adds_scores_through_the_chat_template(mini_verifier, tmp_path):
    config, params, directory = mini_verifier
    pairs = [{"prompt": "f: the sum", "completion": "def f(xs):\n    return sum(xs)", "more": 1}]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(p) + "\n" for p in pairs))
    out = tmp_path / "out.jsonl"
    arguments = ["--verifier", str(directory), "--pairs", str(tmp_path / "in.jsonl")]
    assert score.main([*arguments, "--out", str(out)]) == 0
    (line,) = [json.loads(line) for line in out.read_text().splitlines()]
    chat = Chat(huggingface.load_tokenizer(directory))
    ids = np.concatenate([chat.first(pairs[0]["prompt"]), chat.completion(pairs[0]["completion"])])
    assert line.pop("score") == pytest.approx(float(scorer.Scorer(config, params)([ids])[0]))
    assert line == pairs[0]


def test_the_command_says_in_one_line_what_is_wrong(mini_verifier, tmp_path, capsys):
    _, _, directory = mini_verifier
    (tmp_path / "in.jsonl").write_text('{"prompt": "x"}\n')
    arguments = ["--pairs", str(tmp_path / "in.jsonl"), "--out", str(tmp_path / "out.jsonl")]
    assert score.main(["--verifier", str(directory), *arguments]) == 2
    assert "in.jsonl, line 1: field 'completion'" in capsys.readouterr().err
    (tmp_path / "in.jsonl").write_text('{"prompt": "x", "completion": "y"}\n')
    assert score.main(["--verifier", str(tmp_path), *arguments]) == 2
    assert "config.json" in capsys.readouterr().err
    (tmp_path / "in.jsonl").write_text(json.dumps({"prompt": "x " * 3000, "completion": ""}))
    assert score.main(["--verifier", str(directory), *arguments]) == 2
    assert "line 1: prompt and completion take" in capsys.readouterr().err
    (tmp_path / "in.jsonl").write_text("\n")
    assert score.main(["--verifier", str(directory), *arguments]) == 2
    assert "no pair in it" in capsys.readouterr().err


def test_a_text_of_another_vocabulary_is_refused(mini_verifier):
    config, params, _ = mini_verifier
    with pytest.raises(ValueError, match="made for another tokenizer"):
        scorer.Scorer(config, params)([np.array([1, config.vocab_size], np.int32)])
