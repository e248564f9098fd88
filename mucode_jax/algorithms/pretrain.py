"""Pretraining of the generator that ships with the package, on conversations of the suite `mini`.

Language modelling on the corpus of `benchmarks.mini.corpus`: a byte-level BPE is trained on a part
of it, then a small Llama on all of it, with full weight on completions and a small one on the rest.
What is left in `workdir/generator` is a Hugging Face directory; the committed one, `models/mini`,
was made by `configs/mini_pretrain.py`.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from mucode_jax.benchmarks.mini import corpus
from mucode_jax.core import keys
from mucode_jax.core.conversation import Chat
from mucode_jax.core.records import SFTExample
from mucode_jax.lab import digest
from mucode_jax.models import huggingface, llama, sharding
from mucode_jax.models.tokenizer import write_json
from mucode_jax.runtime.progress import Progress
from mucode_jax.runtime.workdir import Workdir
from mucode_jax.training import batches, losses
from mucode_jax.training.fit import Recipe, fit
from mucode_jax.training.step import OptimizerConfig

PAD, USER, ASSISTANT, END = SPECIAL = ("<|pad|>", "<|user|>", "<|assistant|>", "<|end|>")

CHAT_TEMPLATE = f"""\
{{%- for message in messages -%}}
{{%- if message.role == "user" -%}}
{USER}{{{{ message.content }}}}
{{%- elif message.role == "assistant" -%}}
{ASSISTANT}{{{{ message.content }}}}{END}
{{%- else -%}}
{{{{ raise_exception("this model knows user and assistant messages only") }}}}
{{%- endif -%}}
{{%- endfor -%}}
{{%- if add_generation_prompt -%}}{ASSISTANT}{{%- endif -%}}
"""

# Text is cut into these before bytes are merged, so that a token never reaches over an edge between
# them. What stands in every program alike (the end of its first line, the head of its loop) is one
# piece, and so is a number with the comma before it: conversations are a third shorter for it. A
# letter that stands alone is kept from its space: so it is the same token in words and in code.
PIECES = (
    r"\((?:xs|s)\):\n    (?:return|xs =|s =)"
    r"|\n    return"
    r"| for \w in (?:xs|s\.split\(\)|s)\b(?: if \w\b)?"
    r"|(?:,? )?\d{1,2}"
    r"| (?=[aeioprst]\b)"
    r"|\n? ?[A-Za-z_]+"
    r"| ?[^\sA-Za-z\d]+"
    r"|\s+"
)


def pretrain(config: ConfigDict, workdir: Workdir) -> pathlib.Path:
    """Makes the tokenizer and the generator of `mini`; returns their directory.

    Interrupted and run again, it resumes from the last checkpoint.
    """
    progress = Progress()
    directory = workdir.path / "generator"
    conversations = []
    with progress.task("conversations", config.corpus.size, "conversations") as advance:
        for conversation in corpus.conversations(config.corpus.size, config.seed):
            conversations.append(conversation)
            advance(1)
    texts = (
        text for _, messages in conversations[: config.tokenizer.conversations] for text in messages
    )
    train_tokenizer(texts, config.tokenizer.vocab_size, config.model.max_positions, directory)
    tokenizer = huggingface.load_tokenizer(directory)
    chat = Chat(tokenizer)
    examples = [
        example(chat, tokenizer, task_id, messages, config.corpus.message_weight)
        for task_id, messages in conversations
    ]

    model = llama.LlamaConfig(
        vocab_size=config.tokenizer.vocab_size, tied=True, **config.model.to_dict()
    )
    start = llama.init(model, jax.random.wrap_key_data(keys.key_data(config.seed, "pretrain")))
    count = sum(x.size for x in jax.tree.leaves(start))
    progress.say(f"{count:,} parameters, {sum(len(e.ids) for e in examples):,} tokens")

    recipe = Recipe(
        optimizer=OptimizerConfig(**config.optimizer.to_dict()), **config.train.to_dict()
    )
    mesh = sharding.make_mesh(devices=jax.devices()[:1])
    key = (config.seed, "pretrain")
    packed = batches.pack_sft(examples, recipe.packing("train", mesh), key)
    with progress.task("pretraining", packed.steps, "steps") as advance:

        def on_step(step: int, steps: int, metrics: dict[str, float]) -> None:
            advance(1, f"loss {metrics['loss']:.3f}")

        params = fit(
            losses.sft(model),
            lambda: start,
            packed.epochs,
            recipe,
            axes=llama.logical_axes(model),
            mesh=mesh,
            checkpoints=str(workdir.path / "checkpoints" / digest(config.to_dict())),
            on_step=on_step,
        )
    huggingface.save_generator(params, model, directory, tokenizer_from=directory)
    progress.say(f"the generator is in {directory}")
    return directory


def train_tokenizer(
    texts: Iterable[str], vocab_size: int, max_length: int, directory: pathlib.Path
) -> None:
    """Trains a byte-level BPE on `texts` and writes its Hugging Face files to `directory`."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    if tokenizer.get_vocab_size() != vocab_size:
        raise ValueError(
            f"the corpus gives a vocabulary of {tokenizer.get_vocab_size()}, not {vocab_size}; "
            "raise corpus.size or lower tokenizer.vocab_size"
        )
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(directory / "tokenizer.json"))
    end, pad = SPECIAL.index(END), SPECIAL.index(PAD)
    write_json(
        directory / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": END,
            "pad_token": PAD,
            "model_max_length": max_length,
            "clean_up_tokenization_spaces": False,
            "chat_template": CHAT_TEMPLATE,
        },
    )
    write_json(directory / "generation_config.json", {"eos_token_id": end, "pad_token_id": pad})


def example(
    chat: Chat, tokenizer: Any, task_id: str, messages: Sequence[str], message_weight: float
) -> SFTExample:
    """A conversation as ids: completions weigh 1, the user's messages `message_weight`."""
    ids: list[np.ndarray] = []
    weights: list[np.ndarray] = []
    for message, completion in zip(messages[::2], messages[1::2], strict=True):
        prompt = chat.next(message) if ids else chat.first(message)
        answer = tokenizer.encode(completion, add_special_tokens=False) + [chat.eot_ids[0]]
        ids += [prompt, np.asarray(answer, np.int32)]
        weights += [np.full(len(prompt), message_weight), np.ones(len(answer))]
    return SFTExample(task_id, np.concatenate(ids), np.concatenate(weights).astype(np.float32))
