"""Folders of tiny models whose code lies beside their weights (`auto_map`)."""

import importlib
import json
import shutil
import sys
from pathlib import Path

import torch

CONFIGURATION = """
from transformers import PretrainedConfig


class TinyConfig(PretrainedConfig):
    model_type = "tiny_of_somebody"

    def __init__(self, vocab_size=256, hidden_size=32, num_hidden_layers=4, max_position_embeddings=64,
                 pre_norm=False, causal=False, **more):
        self.vocab_size, self.hidden_size = vocab_size, hidden_size
        self.num_hidden_layers, self.max_position_embeddings = num_hidden_layers, max_position_embeddings
        self.pre_norm, self.causal = pre_norm, causal
        super().__init__(**more)
"""
BLOCKS = """
import torch
from torch import nn


class TinyBlock(nn.Module):
    def __init__(self, config):
        super().__init__()
        size = config.hidden_size
        self.qkv, self.out = nn.Linear(size, 3 * size), nn.Linear(size, size)
        self.norm, self.pre = nn.LayerNorm(size), config.pre_norm

    def forward(self, states, mask):
        query, key, value = self.qkv(self.norm(states) if self.pre else states).chunk(3, -1)
        found = self.out(nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask))
        return (states + found,) if self.pre else (self.norm(states + found),)
"""
MODELING = """
import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from .blocks_tiny import TinyBlock
from .configuration_tiny import TinyConfig


class TinyModel(PreTrainedModel):
    config_class = TinyConfig

    def __init__(self, config):
        super().__init__(config)
        self.words = nn.Embedding(config.vocab_size, config.hidden_size)
        self.places = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.inner = nn.Module()
        self.inner.stack = nn.ModuleList([TinyBlock(config) for _ in range(config.num_hidden_layers)])
        self.last = nn.LayerNorm(config.hidden_size) if config.pre_norm else None
        self.post_init()

    def forward(self, input_ids, attention_mask=None, position_ids=None, return_dict=True):
        if position_ids is None:
            position_ids = torch.arange(input_ids.shape[1], device=input_ids.device)[None]
        states = self.words(input_ids) + self.places(position_ids)
        mask = attention_mask[:, None, :].bool().expand(-1, input_ids.shape[1], -1)
        if self.config.causal:
            mask = mask & torch.ones(input_ids.shape[1], input_ids.shape[1], dtype=torch.bool).tril()
        eye = torch.eye(input_ids.shape[1], dtype=torch.bool)
        mask = mask | eye
        for block in self.inner.stack:
            (states,) = block(states, mask)
        return BaseModelOutput(last_hidden_state=states if self.last is None else self.last(states))
"""
FILES = {
    "configuration_tiny.py": CONFIGURATION,
    "blocks_tiny.py": BLOCKS,
    "modeling_tiny.py": MODELING,
}
AUTO_MAP = {"AutoConfig": "configuration_tiny.TinyConfig", "AutoModel": "modeling_tiny.TinyModel"}


def own_code_folder(folder: Path, tokenizer: Path, **settings: object) -> Path:
    """A folder of the model above with random weights; `tokenizer` is a folder with one."""
    folder.mkdir()
    for name, text in FILES.items():
        (folder / name).write_text(text)
    for path in tokenizer.glob("*token*"):
        shutil.copy(path, folder)
    (folder / "__init__.py").touch()
    sys.path.insert(0, str(folder.parent))
    try:
        name = f"{folder.name}.modeling_tiny"
        module = importlib.import_module(name)
    finally:
        sys.path.pop(0)
        (folder / "__init__.py").unlink()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = module.TinyModel(module.TinyConfig(pad_token_id=0, **settings))
        for parameter in model.parameters():
            parameter.data += 0.2 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"auto_map": AUTO_MAP}))
    shutil.rmtree(folder / "__pycache__", ignore_errors=True)
    return folder
