"""Models whose code lies in their folder: only where the user says so, and then cut as any other."""

import json
import re
import shutil

import pytest
import torch
from own_code import FILES, own_code_folder
from sentence_transformers import SentenceTransformer

from embedtrain.model.folder.contract import read_contract
from embedtrain.model.folder.describe import identity_of, weights_hash
from embedtrain.model.folder.export import load_encoder, save_encoder
from embedtrain.types import InputError, SubModel

TEXTS = ["a cat sleeps", "the man plays guitar in the old house", "", "word " * 30]
SUB = SubModel(2, 16)
KINDS = {
    "post_norm": {},
    "final_norm": {"pre_norm": True},
    "causal": {"pre_norm": True, "causal": True},
}


@pytest.fixture(scope="module", params=KINDS)
def folder(request, tiny_bert, tmp_path_factory):
    return own_code_folder(tmp_path_factory.mktemp("own") / request.param, tiny_bert, **KINDS[request.param])


def test_code_of_a_folder_runs_only_where_the_user_says_so(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "model")
    with (tmp_path / "model/configuration_tiny.py").open("a") as file:
        file.write(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    for words in ({}, {"trust_remote_code": False}):
        with pytest.raises(InputError, match=r"code of its own .*backbone\.trust_remote_code=true"):
            load_encoder(tmp_path / "model", **words)
    with pytest.raises(InputError, match="must be true or false, got 'no'"):
        load_encoder(tmp_path / "model", trust_remote_code="no")
    assert not (tmp_path / "ran").exists()
    load_encoder(tmp_path / "model", trust_remote_code=True)
    assert (tmp_path / "ran").exists()


def test_a_cut_has_the_code_and_gives_the_vectors_everywhere(folder, tmp_path):
    encoder = load_encoder(folder, trust_remote_code=True)
    expected = encoder.encode(TEXTS, (SUB.layer,)).at(SUB)
    cut = save_encoder(encoder, tmp_path / "cut", SUB)
    assert {path.name for path in cut.glob("*.py")} == FILES.keys()
    with pytest.raises(InputError, match="trust_remote_code=true"):
        load_encoder(cut)
    again = load_encoder(cut, trust_remote_code=True)
    assert torch.equal(again.encode(TEXTS, (SUB.layer,)).at(SUB), expected)
    model = SentenceTransformer(str(cut), device="cpu", local_files_only=True, trust_remote_code=True)
    torch.testing.assert_close(torch.tensor(model.encode(TEXTS)), expected, rtol=0, atol=1e-6)
    assert 'SentenceTransformer("cut", trust_remote_code=True)' in (cut / "README.md").read_text()
    assert 'embedtrain.load("cut", trust_remote_code=True)' in (cut / "README.md").read_text()


def test_attention_and_padding_are_those_of_the_code(folder):
    encoder = load_encoder(folder, trust_remote_code=True)
    causal = folder.name == "causal"
    assert encoder.backbone.attention == ("causal" if causal else "bidirectional")
    with pytest.raises(InputError, match="attention in its code: leave out attention"):
        load_encoder(folder, trust_remote_code=True, attention="bidirectional" if causal else "causal")
    left = load_encoder(folder, trust_remote_code=True, padding_side="left")
    sides = [one.encode(TEXTS[:2], (4,)).values for one in (encoder, left)]
    torch.testing.assert_close(*sides, rtol=0, atol=1e-5)


def test_another_code_is_another_model(folder, tmp_path):
    encoder = load_encoder(folder, trust_remote_code=True)
    cut = save_encoder(encoder, tmp_path / "cut")
    assert read_contract(cut).code == encoder.backbone.code == identity_of(encoder)["code of the model"]
    with (cut / "blocks_tiny.py").open("a") as file:
        file.write("TIMES = 2\n")
    with pytest.raises(InputError, match=r"says code is '[0-9a-f]{16}' but the folder has"):
        load_encoder(cut, trust_remote_code=True)
    (cut / "embedtrain.json").unlink()
    assert weights_hash(load_encoder(cut, trust_remote_code=True)) != weights_hash(encoder)


BROKEN = {
    "two lists": (
        "        self.last = ",
        "        self.other = nn.ModuleList([nn.Identity() for _ in range(config.num_hidden_layers)])\n",
        "2 of its lists of modules have 4 entries",
    ),
    "states of two blocks": (
        "        return BaseModelOutput",
        "        states = states + self.words(input_ids)\n",
        "neither the state after its last block nor a norm",
    ),
    "blocks that count": (
        "            (states,) = block",
        "            states = states * len(self.inner.stack)\n",
        "its first 1 blocks alone give another state",
    ),
    "padding that is seen": (
        "        if position_ids is None",
        "        position_ids = None\n",
        "padding on the left changes its vectors",
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_code_that_cannot_be_cut_is_refused_with_the_reason(kind, tiny_bert, tmp_path):
    folder = own_code_folder(tmp_path / "broken", tiny_bert)
    line, more, message = BROKEN[kind]
    text = (folder / "modeling_tiny.py").read_text()
    assert text.count(line) == 1
    (folder / "modeling_tiny.py").write_text(text.replace(line, more + line))
    with pytest.raises(InputError, match=message):
        load_encoder(folder, trust_remote_code=True)


def test_a_tokenizer_of_its_own_code_runs_only_where_the_user_says_so(tiny_bert, tmp_path, caplog):
    shutil.copytree(tiny_bert, tmp_path / "model")
    path = tmp_path / "model/tokenizer_config.json"
    own = {"tokenizer_class": "OwnTokenizer", "auto_map": {"AutoTokenizer": [None, "own.OwnTokenizer"]}}
    path.write_text(json.dumps(json.loads(path.read_text()) | own))
    code = "from transformers import PreTrainedTokenizerFast as Fast\nclass OwnTokenizer(Fast):\n    pass\n"
    (tmp_path / "model/own.py").write_text(code)
    assert type(load_encoder(tmp_path / "model").process.tokenizer).__name__ != "OwnTokenizer"
    assert re.search(r"tokenizer in .* code of its own .* not run.*trust_remote_code=true", caplog.text)
    encoder = load_encoder(tmp_path / "model", trust_remote_code=True)
    assert type(encoder.process.tokenizer).__name__ == "OwnTokenizer"
    cut = save_encoder(encoder, tmp_path / "cut", SUB)
    again = load_encoder(cut, trust_remote_code=True)
    assert torch.equal(again.encode(TEXTS, (2,)).at(SUB), encoder.encode(TEXTS, (2,)).at(SUB))
