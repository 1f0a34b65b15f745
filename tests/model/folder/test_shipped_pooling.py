"""Exported folders whose pooling sentence-transformers does not have."""

import json
import re
import shutil
import string
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from shipped import assert_shipped, shipped
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import BPE
from torch import nn
from transformers import PreTrainedTokenizerFast

from embedtrain.model.folder.export import load_encoder, save_encoder
from embedtrain.model.folder.shipped_code import state_norm
from embedtrain.model.folder.shipped_pooling import StateNorm, StatePooling
from embedtrain.model.folder.st_folder import miscounted_prompts
from embedtrain.types import InputError, SubModel

SUB = SubModel(3, 16)


WITHOUT_US = """
import json, sys
from pathlib import Path
sys.modules["embedtrain"] = None  # importing it now fails
import warnings
warnings.simplefilter("error")
from sentence_transformers import SentenceTransformer
found = []
for folder in sys.argv[2:]:
    own_code = any(Path(folder).glob("*.py"))
    model = SentenceTransformer(folder, device="cpu", local_files_only=True, trust_remote_code=own_code)
    found.append(model.encode_query(json.loads(sys.argv[1]), show_progress_bar=False).tolist())
assert not [name for name in sys.modules if name.startswith("embedtrain.")]
print(json.dumps(found))
"""


def test_a_fresh_process_without_embedtrain_loads_every_pooling_without_a_warning(
    tiny_bert, tiny_llama, tiny_modernbert, tmp_path, sentences
):
    expected, folders = [], []
    for path, pooling in (
        (tiny_llama, "gated_mean"),
        (tiny_llama, "latent_attention"),
        (tiny_llama, "multi_layer"),
        (tiny_llama, "last_layer"),
        (tiny_modernbert, "multi_layer"),
        (tiny_modernbert, "weighted_mean"),
        (tiny_bert, "mean"),
    ):
        encoder = load_encoder(path, pooling=pooling, prompts={"query": "the word: "}, include_prompt=False)
        folders.append(save_encoder(encoder, tmp_path / f"{path.name}_{pooling}", SUB))
        expected.append(encoder.encode(sentences, (SUB.layer,), "query").at(SUB))
    command = [sys.executable, "-c", WITHOUT_US, json.dumps(sentences), *map(str, folders)]
    place = {"HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1", "PATH": ""}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=place)
    assert done.returncode == 0, done.stderr
    assert "warn" not in done.stderr.lower()
    assert "newly initialized" not in done.stderr
    for found, value in zip(json.loads(done.stdout.splitlines()[-1]), expected, strict=True):
        torch.testing.assert_close(torch.tensor(found), value, rtol=0, atol=1e-5)


def test_code_of_a_folder_is_not_run_unasked(tiny_llama, tmp_path):
    folder = save_encoder(load_encoder(tiny_llama, pooling="latent_attention"), tmp_path / "model")
    with pytest.raises(ValueError, match="trust_remote_code=True"):
        SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    card = (folder / "README.md").read_text()
    assert 'SentenceTransformer("model", trust_remote_code=True)' in card
    assert "runs. `embedtrain.model.folder.export.load_encoder` needs none of them" in card


@pytest.mark.parametrize("pooling", ["cls", "eos", "gated_mean", "max", "mean", "weighted_mean"])
def test_no_code_is_shipped_where_sentence_transformers_pools_alike(tiny_llama, tmp_path, sentences, pooling):
    encoder = load_encoder(tiny_llama, pooling=pooling, prompts={"query": "the word: "})
    folder = save_encoder(encoder, tmp_path / "model", SUB)
    assert list(folder.glob("*.py")) == []
    assert_shipped(folder, encoder, sentences, SUB)


def test_sentence_transformers_can_save_what_it_loaded(tiny_modernbert, tmp_path, sentences):
    encoder = load_encoder(
        tiny_modernbert, pooling="multi_layer", prompts={"query": "a "}, include_prompt=False
    )
    folder = save_encoder(encoder, tmp_path / "model", SUB)
    SentenceTransformer(str(folder), device="cpu", trust_remote_code=True).save(str(tmp_path / "again"))
    found = shipped(tmp_path / "again", sentences, "query")
    assert torch.equal(found, shipped(folder, sentences, "query"))


def test_weights_are_safetensors_and_bfloat16_stays(tiny_llama, tmp_path, sentences):
    encoder = load_encoder(tiny_llama, pooling="multi_layer", dtype="bfloat16")
    folder = save_encoder(encoder, tmp_path / "model", SUB)
    state = load_file(folder / "1_StatePooling/model.safetensors")
    assert state["norm.weight"].dtype == torch.bfloat16
    assert state["pooling.sets.shared.latents"].dtype == torch.float32
    again = load_encoder(folder, dtype="bfloat16").encode(sentences, (3,), "query").at(SUB)
    torch.testing.assert_close(again, encoder.encode(sentences, (3,), "query").at(SUB), rtol=0, atol=1e-6)
    assert_shipped(folder, encoder, sentences, SUB, atol=0.03)


def test_what_the_transformer_does_not_give_is_named():
    features = {"token_embeddings": torch.ones(1, 2, 4), "attention_mask": torch.ones(1, 2)}
    pooling = StatePooling(
        "multi_layer", {"latents": 2}, 4, 3, include_prompt=True, prompt_lengths={}, norm=None
    )
    with pytest.raises(ValueError, match=r"needs the states of 3 blocks, got 0: .*output_hidden_states=true"):
        pooling(features)
    with pytest.raises(ValueError, match=r"set `model\[0\]\.unpad_inputs = False`"):
        pooling({**features, "attention_mask": torch.ones(1, 7)})


class OneMore(nn.Module):
    """RMSNorm as Gemma has it: its weight is the scale less one."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.randn(32)), 1e-6

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return states * torch.rsqrt(states.pow(2).mean(-1, keepdim=True) + self.eps) * (1 + self.weight)


@pytest.mark.parametrize("make", [nn.RMSNorm, nn.LayerNorm, OneMore])
def test_a_copied_norm_computes_what_the_norm_does(make):
    norm = make(32) if make is not OneMore else make()
    if make is nn.RMSNorm:
        norm.eps = 1e-5
    for value in norm.parameters():
        value.data += 0.3 * torch.randn_like(value)
    copied = state_norm(norm, 32)
    assert isinstance(copied, StateNorm)
    states = torch.randn(2, 5, 32)
    torch.testing.assert_close(copied(states), norm(states))


def test_a_norm_that_cannot_be_copied_is_named():
    class Odd(OneMore):
        def forward(self, states: torch.Tensor) -> torch.Tensor:
            return states * self.weight

    with pytest.raises(InputError, match="cannot ship the final norm Odd"):
        state_norm(Odd(), 32)


@pytest.fixture(scope="module")
def byte_level(tiny_llama, tmp_path_factory) -> Path:
    """The tiny Llama with a byte-level tokenizer, which joins a space to the letter behind it."""
    folder = Path(shutil.copytree(tiny_llama, tmp_path_factory.mktemp("byte_level") / "llama"))
    letters = [*string.ascii_lowercase, ":"]
    words = ["[PAD]", "<s>", "</s>", "Ġ", *letters, *(f"Ġ{letter}" for letter in letters)]
    index = {word: place for place, word in enumerate(words)}
    tokenizer = Tokenizer(BPE(index, [("Ġ", letter) for letter in letters]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = {"pad_token": "[PAD]", "bos_token": "<s>", "eos_token": "</s>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=64, **special).save_pretrained(
        folder
    )
    return folder


@pytest.mark.parametrize("pooling", ["mean", "latent_attention", "cls"])
def test_a_prompt_that_would_be_miscounted_is_shipped_with_its_right_number(byte_level, tmp_path, pooling):
    texts = ("the cat", "this", "a longer text than the others")
    prompts = {"query": "find: ", "document": "this:"}
    settings = {"pooling": pooling, "append_eos": True, "include_prompt": False}
    encoder = load_encoder(byte_level, prompts=prompts, **settings)
    assert miscounted_prompts(encoder.process) == {"6": 5}
    folder = save_encoder(encoder, tmp_path / "model", SUB)
    assert_shipped(folder, encoder, texts, SUB)
    pooled = load_encoder(byte_level, prompts=prompts).process  # so of no account
    assert miscounted_prompts(pooled) == {}
    two = load_encoder(byte_level, prompts={"query": "find: ", "document": "finds:"}, **settings)
    with pytest.raises(
        InputError, match="would skip 6 tokens for two prompts, of which one has 5 and 'finds:' has 6"
    ):
        save_encoder(two, tmp_path / "two")


def test_transformers_4_finds_all_sources_and_the_tokenizer(tiny_bert, tmp_path):
    """Of files in a folder, transformers 4 copies only those that this expression finds in the first."""
    save_encoder(load_encoder(tiny_bert, pooling="multi_layer"), tmp_path / "model", SubModel(2, 16))
    files = {path.stem for path in (tmp_path / "model").glob("embedtrain_*.py")}
    first = (tmp_path / "model" / "embedtrain_pooling.py").read_text()
    found = re.findall(r"^\s*from\s+\.(\S+)\s+import", first, flags=re.MULTILINE)
    assert {*found} == files - {"embedtrain_pooling"}
    said = json.loads((tmp_path / "model" / "tokenizer_config.json").read_text())
    assert said["tokenizer_class"] in ("PreTrainedTokenizerFast", "BertTokenizer")
    assert not isinstance(said.get("extra_special_tokens"), list)
