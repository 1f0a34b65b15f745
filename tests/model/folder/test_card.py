"""What a card says of where a model comes from, and to programs that call plain `encode`."""

import ast
import re
import shutil

import pytest
import torch
from huggingface_hub import ModelCard
from sentence_transformers import SentenceTransformer

from embedtrain.model.folder.cards.card import Story, renew_card
from embedtrain.model.folder.export import load_encoder, save_encoder
from embedtrain.types import SubModel

BASE_CARD = "---\nlicense: apache-2.0\ndatasets: [owner/of-the-base]\n---\n"
PROMPTS = {"query": 'find "this": ', "document": "text: "}


@pytest.fixture
def base(tiny_bert, tmp_path):
    folder = shutil.copytree(tiny_bert, tmp_path / "base")
    (folder / "README.md").write_text(BASE_CARD)
    return folder


def facts(folder):
    data = ModelCard.load(folder / "README.md").data
    return data.base_model, data.license, data.datasets


def test_base_license_and_datasets_outlive_cuts_and_scores(base, tmp_path):
    encoder = load_encoder(base)
    assert encoder.datasets == (), "those of the base are not what this model was trained on"
    encoder.datasets = ("owner/pairs",)
    encoder.source = "owner/base"
    model = save_encoder(encoder, tmp_path / "model")
    cut = save_encoder(load_encoder(model), tmp_path / "cut", SubModel(1, 8))
    renew_card(cut, Story())
    assert facts(model) == facts(cut) == ("owner/base", "apache-2.0", ["owner/pairs"])


@pytest.mark.parametrize("card", ["", "---\nlicense: [\n---\n", "---\nlicense: {a: b}\n---\n", "no card"])
def test_a_card_that_says_nothing_is_no_error(base, tmp_path, card):
    (base / "README.md").write_text(card)
    found = facts(save_encoder(load_encoder(base), tmp_path / "model"))
    assert found == (None, None, None), "a local folder is no model of the hub"


def test_the_lines_for_clients_give_the_vectors_of_the_roles(base, tmp_path):
    folder = save_encoder(load_encoder(base, prompts=PROMPTS), tmp_path / "model")
    card = (folder / "README.md").read_text()
    found = re.search(r"encode_kwargs=({.*?}), query_encode_kwargs=({.*?})\)", card)
    model = SentenceTransformer(str(folder), device="cpu")
    for kwargs, encode in zip(found.groups(), (model.encode_document, model.encode_query), strict=True):
        plain = model.encode(["a cat"], **ast.literal_eval(kwargs))
        torch.testing.assert_close(torch.tensor(plain), torch.tensor(encode(["a cat"])))
    (default,) = re.findall(r'default_prompt_name="(\w+)"', card)
    chroma = SentenceTransformer(str(folder), default_prompt_name=default, device="cpu")
    torch.testing.assert_close(
        torch.tensor(chroma.encode(["a cat"])), torch.tensor(model.encode_document(["a cat"]))
    )
    for block in re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL):
        ast.parse(block)


def test_a_model_without_prompts_needs_no_lines(base, tmp_path):
    assert "LangChain" not in (save_encoder(load_encoder(base), tmp_path / "model") / "README.md").read_text()
