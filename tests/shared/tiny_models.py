"""Tiny models of every family, made from a config; random, but alike in every test."""

import torch
from transformers import CONFIG_MAPPING

from embedtrain.model.backbone.attention import with_attention
from embedtrain.model.backbone.families import FAMILIES
from embedtrain.model.backbone.loading import loader
from embedtrain.types import Inputs

SIZES = {"vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4}
SIZES |= {"intermediate_size": 64, "max_position_embeddings": 40, "bos_token_id": 2, "eos_token_id": 3}
GEMMA = {"query_pre_attn_scalar": 8, "sliding_window": 6}
RELATIVE = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]}
OWN = {
    "albert": {"embedding_size": 16},
    "deberta": {**RELATIVE, "max_relative_positions": 40},
    "deberta-v2": {**RELATIVE, "position_buckets": 8, "conv_kernel_size": 3, "conv_act": "gelu",
                   "norm_rel_ebd": "layer_norm"},
    "electra": {"embedding_size": 16},
    "eurobert": {"num_key_value_heads": 4, "mask_token_id": 4},
    "gemma2": GEMMA,
    "gemma3_text": {**GEMMA, "sliding_window_pattern": 3},
    "mistral": {"sliding_window": 6},
    "qwen2": {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 2},
    "modernbert": {"local_attention": 8, "cls_token_id": 2, "sep_token_id": 3},
}  # fmt: skip
DISTILBERT = {"hidden_size": "dim", "num_hidden_layers": "n_layers", "num_attention_heads": "n_heads",
              "intermediate_size": "hidden_dim"}  # fmt: skip


def tiny_config(kind, **changes):
    """A config of 4 layers x 32; decoders have 2 heads for keys and values, windows are of few tokens."""
    settings = SIZES | {"pad_token_id": 1 if FAMILIES[kind].positions == "after_padding" else 0}
    if FAMILIES[kind].decoder and kind != "gpt2":
        settings |= {"num_key_value_heads": 2, "head_dim": 8}
    settings |= OWN.get(kind, {}) | changes
    if kind == "distilbert":
        settings = {DISTILBERT.get(key, key): value for key, value in settings.items()}
    return CONFIG_MAPPING[kind](**settings)


def tiny_model(config, attention=None, *, attn_implementation=None, dtype=torch.float32):
    """Random weights, norms and biases included, so that a forgotten norm or bias shows."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        config = with_attention(config, attention)
        kind = loader(config)
        if hasattr(kind, "from_config"):
            model = kind.from_config(config, attn_implementation=attn_implementation, dtype=dtype)
        else:
            config._attn_implementation = attn_implementation
            model = kind(config).to(dtype)
        for parameter in model.parameters():
            parameter.data += 0.2 * torch.randn_like(parameter)
    return model.eval()


def some_tokens(lengths=(20, 12, 3), pad=0, left=False, width=None, rows=None):
    """Some rows of texts of these lengths, padded to `width` on one side."""
    draw = torch.Generator().manual_seed(0)
    texts = [torch.randint(5, 96, (length,), generator=draw) for length in lengths]
    texts = [texts[row] for row in (range(len(texts)) if rows is None else rows)]
    width = width or max(map(len, texts))
    ids, mask = torch.full((len(texts), width), pad), torch.zeros(len(texts), width, dtype=torch.bool)
    for row, text in enumerate(texts):
        columns = slice(width - len(text), width) if left else slice(0, len(text))
        ids[row, columns], mask[row, columns] = text, True
    return Inputs(ids, mask, torch.zeros(len(texts), dtype=torch.int64))
