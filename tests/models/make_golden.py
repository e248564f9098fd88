"""Writes tests/models/golden: tiny checkpoints and what torch transformers makes of them.

python tests/models/make_golden.py      # needs torch; run again only to change what is covered
"""

import pathlib
import shutil

import numpy as np
import torch
import transformers

GOLDEN = pathlib.Path(__file__).parent / "golden"
SCALING = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8,
}
SHAPE = {
    "vocab_size": 48,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,  # large, so that attention is far from uniform
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
MODELS = {
    "llama2": {"num_key_value_heads": 4, "rms_norm_eps": 1e-6},
    "llama31": {"num_key_value_heads": 2, "rope_parameters": {"rope_theta": 500000.0, **SCALING}},
    "llama32": {
        "num_key_value_heads": 1,
        "head_dim": 6,
        "tie_word_embeddings": True,
        "rope_parameters": {"rope_theta": 500000.0, **SCALING},
    },
    "classifier": {"num_key_value_heads": 2, "num_labels": 1},
}


def main() -> None:
    shutil.rmtree(GOLDEN, ignore_errors=True)
    tokens = np.random.default_rng(0).integers(3, 48, (3, 14))
    # Right-padded rows of 14, 9 and 1 tokens.
    mask = np.arange(14) < np.array([[14], [9], [1]])
    tokens = np.where(mask, tokens, 0)
    for name, changes in MODELS.items():
        torch.manual_seed(0)
        kind = (
            transformers.LlamaForSequenceClassification
            if name == "classifier"
            else transformers.LlamaForCausalLM
        )
        model = kind(transformers.LlamaConfig(**SHAPE, **changes)).eval()
        for parameter in model.parameters():
            if parameter.ndim == 1:  # norms: away from 1
                torch.nn.init.uniform_(parameter, 0.5, 1.5)
        model.save_pretrained(GOLDEN / name)
        with torch.no_grad():
            out = model(torch.tensor(tokens), attention_mask=torch.tensor(mask).long()).logits
        np.savez(GOLDEN / name / "expected.npz", tokens=tokens, mask=mask, out=out.numpy())
        (GOLDEN / name / "generation_config.json").unlink(missing_ok=True)


if __name__ == "__main__":
    main()
