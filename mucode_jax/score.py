"""Adds a verifier's score to prompts and completions.

    python -m mucode_jax.score --verifier DIR --pairs IN.jsonl --out OUT.jsonl

The command adds `"score"` to lines of `{"prompt", "completion"}`: the prompt is one user message,
the completion the whole assistant message, through the checkpoint's chat template.
"""

from __future__ import annotations

from mucode_jax.runtime import interruption

if __name__ == "__main__":
    interruption.leave_at_once()  # the imports below take seconds

import json
import sys
from collections.abc import Sequence

import numpy as np

from mucode_jax.benchmarks.files import Row, read_jsonl
from mucode_jax.core.conversation import Chat
from mucode_jax.models import hub, huggingface
from mucode_jax.rollouts.scorer import Scorer
from mucode_jax.runtime import hosts
from mucode_jax.runtime.command import Parser, fail, writing


def read_pairs(path: str) -> list[tuple[Row, str, str]]:
    """Every line of `path`, with its prompt and its completion.

    Raises ValueError that names the line at fault, or says that there is none.
    """
    pairs = [(row, row.text("prompt"), row.text("completion")) for row in read_jsonl(path)]
    if not pairs:
        raise ValueError(f"{path}: no pair in it")
    return pairs


def as_read(pairs: Sequence[tuple[Row, str, str]], chat: Chat, longest: int) -> list[np.ndarray]:
    """int32 [T] for each pair: the ids that the verifier reads.

    Raises ValueError that names the line with more than `longest` ids.
    """
    texts = []
    for row, prompt, completion in pairs:
        ids = np.concatenate([chat.first(prompt), chat.completion(completion)])
        if len(ids) > longest:
            raise ValueError(
                f"{row.where}: prompt and completion take {len(ids)} tokens; the verifier reads "
                f"{longest}"
            )
        texts.append(ids)
    return texts


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = Parser("score", __doc__, "0 scored, 1 the result could not be written, 2 bad input")
    parser.add_argument("--verifier", required=True, help="a verifier's directory or hub id")
    parser.add_argument("--pairs", required=True, help='JSONL of {"prompt", "completion"}')
    parser.add_argument("--out", required=True, help="where the lines go, with their score")
    flags = parser.parse_args(argv)
    try:
        hosts.backend()
        pairs = read_pairs(flags.pairs)
        directory = hub.resolve_verifier(flags.verifier)
        config = huggingface.read_config(directory)
        eot_ids = huggingface.eot_ids(directory)
        chat = Chat(huggingface.load_tokenizer(directory), eot_ids)
        texts = as_read(pairs, chat, config.max_positions)
        with writing(flags.out, of=[flags.pairs]) as out:
            scorer = Scorer(config, huggingface.load_verifier(directory, config))
            scores = scorer(texts)
            for (row, *_), score in zip(pairs, scores.tolist(), strict=True):
                out.write(json.dumps({**row.fields, "score": score}) + "\n")
    except ValueError as error:
        return fail("score", str(error), 2)
    except OSError as error:
        return fail("score", str(error), 1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
