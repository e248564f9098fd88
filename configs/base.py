"""Every setting with its default: the published hyperparameters, our choices where they differ.

Experiments import this and change what they need; nothing reads a setting that is not named here.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """The settings of an expert-iteration experiment."""
    c = ConfigDict()
    c.experiment = "iterate"  # or "pretrain" (configs/mini_pretrain.py)
    c.seed = 0
    c.seeds = ()  # several: a run of each, and their evidence (`mucode_jax.lab.sweep`)
    c.cells = ()  # (name, settings) pairs: a run of each with every seed, and their evidence
    # ssd, star, multi_star, multi_star_all, multi_star_balanced, rft_lv, mucode
    c.methods = ("mucode",)
    c.iterations = 2  # M
    c.profile_steps = 0  # steps of each training that JAX's profiler captures

    c.generator = ConfigDict()
    # "mini", a Hugging Face directory, or a hub id; "random:DIR": random parameters of `shape`, and
    # the tokenizer of Llama 3's files in DIR (configs/smoke_mbpp.py).
    c.generator.path = "mini"
    c.generator.dtype = "float32"  # of computation
    c.generator.param_dtype = "float32"
    c.generator.stored_dtype = "float32"  # of trained models on disk, unless they are narrower
    c.generator.remat = False
    # The model's shape (fields of models.llama.LlamaConfig), for a random model, and for estimates
    # and ahead-of-time compilation where `path` cannot be reached; empty: read off the checkpoint.
    c.generator.shape = ConfigDict()

    c.verifier = ConfigDict()
    # What every verifier is trained from: "mini" (the verifier that comes along), a generator's or
    # a verifier's directory, or a hub id, with the generator's tokenizer; "": the base generator.
    c.verifier.path = ""
    c.verifier.shape = ConfigDict()  # as the generator's

    c.train = ConfigDict()  # the problems that are learned from
    c.train.benchmark = "mini"
    c.train.split = "train"
    c.train.data = ""  # a local JSONL file; "": the hub
    c.train.size = 0  # 0: all (mini has no end: it needs a number)
    c.train.seed = 0  # mini: which problems
    c.train.compat = False  # the published division into public and private tests
    c.train.testless = False  # prompts that do not show the public tests

    c.rollout = ConfigDict()
    c.rollout.n = 15  # N rollouts a problem
    c.rollout.turns = 3  # T
    c.rollout.code_block = "commonmark"  # where a completion's code is; or "published"
    c.rollout.add_correct = False  # put each problem's reference solution among its rollouts
    c.rollout.temperature = 0.7
    c.rollout.top_p = 1.0
    c.rollout.top_k = 0
    c.rollout.max_new_tokens = 1000
    c.rollout.max_feedback_tokens = 512
    c.rollout.context = 8192
    c.rollout.slots = 0  # sequences decoded at a time; 0: as many as memory holds

    c.expert = ConfigDict()
    c.expert.kind = "ov+lv"  # lv, ov, ov+lv
    c.expert.scope = "all_turns"  # or "final"
    c.expert.pool = "iteration"  # or "all": the best code seen in any iteration so far
    c.expert.drop_unsolved = True
    c.expert.max_unsuccessful = 3  # relabelled rollouts a problem and iteration

    c.verifier_training = ConfigDict()
    v = c.verifier_training
    v.loss = "bt"  # Bradley-Terry, or "bce"
    v.epochs = 2
    v.pairs_per_problem = 32
    v.batch = 64  # pairs per step, or twice as many single examples, on any mesh
    # Rows that a step is packed into, room for `batch` and no more: of `length` tokens, of pairs
    # twice that. 0: as many as are needed, as short as may be.
    v.rows = 0
    v.length = 2048  # of a prompt with its completion; longer ones are left out
    v.score_penalty = 1e-3  # L2 on scores
    v.held_out = 0.1  # share of problems the verifier is measured on
    _optimizer(v, 1e-6)

    c.sft = ConfigDict()
    s = c.sft
    s.epochs = 2
    s.batch = 16  # examples per step, on any mesh
    s.rows = 0  # as for the verifier
    s.merge = True  # identical examples once, with their weights added
    s.length = 8192  # of a conversation; longer ones are left out
    _optimizer(s, 5e-7)

    c.evaluation = ConfigDict()
    c.evaluation.benchmark = "mini"
    c.evaluation.split = "test"
    c.evaluation.data = ""
    c.evaluation.size = 0
    c.evaluation.seed = 0
    c.evaluation.compat = False
    c.evaluation.testless = False
    c.evaluation.protocol = "deployable"  # or "paper"
    # More benchmarks, each "NAME:SPLIT" or "NAME:SPLIT:FILE", whole; compat, testless as above.
    c.evaluation.also = ()

    c.search = ConfigDict()  # multi-turn Best-of-N, of the base and of a method's last generator
    c.search.methods = ("base", "mucode")
    c.search.n = 5
    c.search.temperature = 0.7
    c.search.top_p = 1.0
    c.search.top_k = 0
    c.search.searches = 10
    c.search.choices = ("random", "pt", "lv", "pt+lv", "oracle")
    c.search.skip_failed = True
    c.search.agree_inputs = 16  # further inputs per problem, of the choice "agree"

    c.sandbox = ConfigDict()
    c.sandbox.isolation = "landlock"  # the weakest level accepted: namespaces, landlock, rlimits
    c.sandbox.workers = 0  # 0: one a core
    c.sandbox.memory_mb = 512
    c.sandbox.feedback = "values"  # or "traceback", "none"
    c.sandbox.python = ""  # the interpreter of programs and tests, with numpy; "": this one
    c.sandbox.share_folder = False  # tests and programs share their temporary folder, for files
    # Problems whose tests cannot run, whatever the program, are left out; a larger share of a
    # benchmark's stops the run.
    c.sandbox.broken_tests = 0.05

    c.mesh = ConfigDict()
    c.mesh.data = -1  # -1: whatever the others leave
    c.mesh.fsdp = 1
    c.mesh.tensor = 1
    c.mesh.sampling_tensor = 1  # of each host's own devices, for sampling; -1: all of them
    return c


VARIANTS = ("star", "multi_star", "bce", "lora", "compat")


def variants(c: ConfigDict, names: str) -> ConfigDict:
    """Changes by name, several with commas between them: "star,lora".

    `star` and `multi_star` are methods in place of μCode, `bce` the verifier's other loss, `lora`
    trains adapters on a bfloat16 base (rates ten times as high, ours, not published), `compat` is
    below.
    """
    chosen = names.split(",") if names else []
    for name in chosen:
        if name not in VARIANTS:
            raise ValueError(f"no variant {name!r}; there are {', '.join(VARIANTS)}")
    methods = tuple(name for name in chosen if name in ("star", "multi_star"))
    if methods:
        c.methods = methods
        c.search.methods = ("base", *methods)
    if "bce" in chosen:
        c.verifier_training.loss = "bce"
    if "lora" in chosen:
        c.generator.param_dtype = "bfloat16"
        for section in (c.verifier_training, c.sft):
            section.lora_rank = 16
            section.learning_rate *= 10
    return compat(c) if "compat" in chosen else c


# The shapes of checkpoints, so that memory is known before they are fetched.
LLAMA_32_1B = {
    "vocab_size": 128256,
    "d_model": 2048,
    "n_layers": 16,
    "n_heads": 32,
    "n_kv_heads": 8,
    "head_dim": 64,
    "d_ff": 8192,
    "tied": True,
    "max_positions": 131072,
}
LLAMA_31_8B = LLAMA_32_1B | {
    "d_model": 4096,
    "n_layers": 32,
    "head_dim": 128,
    "d_ff": 14336,
    "tied": False,
}


def llama(path: str, shape: dict[str, int | bool]) -> ConfigDict:
    """What the experiments with real Llamas share: bfloat16 over float32 master weights, FSDP.

    Trained models are written in bfloat16, in which they sample and score.
    """
    c = get_config()
    c.generator.path = path
    c.generator.dtype = c.generator.stored_dtype = "bfloat16"
    c.generator.remat = True
    c.generator.shape.update(shape)
    c.mesh.data = 1  # of several slices: their number
    c.mesh.fsdp = -1
    return c


def mbpp(c: ConfigDict) -> ConfigDict:
    """Training on MBPP, evaluation on its test split, HumanEvalPack and the plus sets."""
    c.train.benchmark = c.evaluation.benchmark = "mbpp"
    c.train.split, c.evaluation.split = "train", "test"
    c.evaluation.also = ("humanevalpack:test", "mbpp_plus:test", "humaneval_plus:test")
    # Three turns of 1,000 tokens with their feedback, and the longest prompt (1,150 tokens).
    c.rollout.context = c.sft.length = 5248
    return c


def compat(c: ConfigDict) -> ConfigDict:
    """The published code's choices where ours differ (README says what and why)."""
    c.rollout.code_block = "published"
    c.expert.scope = "final"
    c.expert.pool = "iteration"
    c.expert.drop_unsolved = False
    c.search.skip_failed = False
    c.evaluation.protocol = "paper"
    c.train.compat = c.evaluation.compat = c.evaluation.benchmark != "mini"
    c.sandbox.feedback = "traceback"
    c.sft.merge = False
    v = c.verifier_training
    v.held_out = 0.0
    v.weight_decay = 0.01
    v.horizon = 2.0  # epochs counted twice: the rate ends at half
    if v.loss == "bce":
        v.score_penalty = 0.0
    return c


def _optimizer(section: ConfigDict, learning_rate: float) -> None:
    section.learning_rate = learning_rate
    section.schedule = "linear"  # to zero; or "cosine", "constant"
    section.warmup_steps = 0
    section.horizon = 1.0  # 2.0: a linear schedule ends at half the rate, as published
    section.weight_decay = 0.0
    section.b1 = 0.9
    section.b2 = 0.999
    section.eps = 1e-5
    section.clip_norm = 1.0
    section.moment_dtype = "float32"
    section.param_dtype = "float32"
    section.microbatches = 1  # a step works through its batch in so many parts, to save memory
    section.lora_rank = 0  # above 0: low-rank adapters of this rank, merged into what is exported
    section.lora_alpha = 32.0
