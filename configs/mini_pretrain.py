"""The base generator that ships with the package, made anew.

    python -m mucode_jax.main --config configs/mini_pretrain.py --workdir runs/mini_pretrain

At most ten minutes on two idle cores; the result, a Hugging Face directory of some 2.5 MB, is in
`runs/mini_pretrain/generator`. `:tiny` walks the same path in half a minute and learns little.
"""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    """The settings; `arg` is "" or "tiny"."""
    if arg not in ("", "tiny"):
        raise ValueError(f"mini_pretrain has no variant {arg!r}; it has :tiny")
    tiny = arg == "tiny"
    c = ConfigDict()
    c.experiment = "pretrain"
    c.seed = 0

    c.corpus = ConfigDict()
    c.corpus.size = 400 if tiny else 28_000  # conversations
    c.corpus.message_weight = 0.1  # loss weight of the user's messages

    c.tokenizer = ConfigDict()
    c.tokenizer.vocab_size = 512 if tiny else 1024
    c.tokenizer.conversations = 8_000  # the first of the corpus

    c.model = ConfigDict()
    c.model.d_model = 128
    c.model.n_layers = 3
    c.model.n_heads = 4
    c.model.n_kv_heads = 2
    c.model.head_dim = 32
    c.model.d_ff = 256
    c.model.max_positions = 1024

    c.train = ConfigDict()
    c.train.epochs = 1
    c.train.length = 192  # the 1 % of conversations that are longer are left out
    c.train.batch = 12
    c.train.rows = 0  # as many as hold `batch`

    c.optimizer = ConfigDict()
    c.optimizer.learning_rate = 2.5e-3
    c.optimizer.schedule = "cosine"
    c.optimizer.warmup_steps = 50
    c.optimizer.weight_decay = 0.01
    c.optimizer.b2 = 0.98
    return c
