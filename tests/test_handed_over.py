"""Every file that somebody may hand over: damaged or hostile, it ends as one line that names the file."""

import json
import shutil

import datasets
import numpy as np
import pytest
import yaml
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Pooling, Transformer
from torch import nn

from embedtrain.evaluation.catalogue.official.manifest import read_manifest
from embedtrain.evaluation.per_item.stored import read_items
from embedtrain.files.checkpoint_folder import StageFolder
from embedtrain.files.reading import read_yaml
from embedtrain.files.rows import read_rows
from embedtrain.files.run_folder import RunFolder
from embedtrain.files.scores import read_scores, read_tasks
from embedtrain.mining.tables import path_of, read_table
from embedtrain.model.backbone.lora import CONFIG, WEIGHTS, load_adapter
from embedtrain.model.folder.contract import read_contract, read_object
from embedtrain.model.folder.export import load_encoder
from embedtrain.model.guides.guide import load_guide
from embedtrain.training.checkpoints import HashedCheckpointIO
from embedtrain.types import InputError
from embedtrain.vectors.store import VectorStore, key_of

DEEP, LOOP = "[" * 100_000, "a: &a\n  b: *a\n"
ALIASES = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
CONTENTS = {
    "empty": b"",
    "cut": b'{"a": [1, 2',
    "null": b"null",
    "a number": b"7",
    "an array": b'[[1], {"b": 2}, "c"]\n',
    "another object": b'{"repos": [7], "config": 3, "versions": [], "weights": 5}\n',
    "bytes": bytes(range(256)) * 8,
    "a zip": b"PK\x03\x04" + bytes(200),
    "deep": DEEP.encode() + b"\n",
    "deep objects": b'{"a":' * 100_000 + b"\n",
    "digits": b'{"a": ' + b"9" * 5000 + b"}\n",
    "aliases": ALIASES.encode(),
    "a loop": LOOP.encode(),
}
READERS = {
    "scores.jsonl": read_scores,
    "tasks.json": read_tasks,
    "embedtrain.json": lambda path: read_contract(path.parent),
    "any.json": read_object,
    "manifest.json": lambda path: read_manifest(path.parent),
    "items.npz": read_items,
    "finished.json": lambda path: StageFolder(path.parent).finished,
    "config.yaml": lambda path: RunFolder(path.parent.parent, path.parent.name).prepare({}, {}, world_size=1),
    "any.yaml": lambda path: read_yaml(path, "Write it again"),
    "any.ckpt": HashedCheckpointIO().load_checkpoint,
    "rows.jsonl": lambda path: list(read_rows(path)),
    "rows.json": lambda path: list(read_rows(path)),
    "rows.jsonl.gz": lambda path: list(read_rows(path)),
    "rows.parquet": lambda path: list(read_rows(path)),
    "mined": lambda path: read_table(path.parent, 3, 2, must_exist=True),
}
FINE = {
    "scores.jsonl": {"empty", "cut", "null", "a number", "a zip"},  # one line, which a killed writer cut off
    "any.json": {"another object"},
    "rows.jsonl": {"empty", "another object"},
    "rows.json": {"empty", "another object"},
    "rows.jsonl.gz": {"empty"},
    "any.yaml": {"empty", "null", "a number", "an array", "another object"},
}


@pytest.mark.parametrize("kind", CONTENTS)
@pytest.mark.parametrize("name", READERS)
def test_a_file_that_is_not_what_it_should_be_is_named(name, kind, tmp_path):
    path = path_of(tmp_path, 3) if name == "mined" else tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(CONTENTS[kind])
    if kind in FINE.get(name, ()):
        READERS[name](path)
        return
    with pytest.raises(InputError, match=path.name.replace(".", r"\.")) as refused:
        READERS[name](path)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 2000


MODEL_FILES = {
    "config.json": [
        *(CONTENTS[kind] for kind in ("empty", "cut", "null", "an array", "bytes", "deep", "digits")),
        b'{"model_type": 3}',
        b'{"model_type": "bert", "hidden_size": "wide"}',
    ],
    "tokenizer.json": [CONTENTS[kind] for kind in ("empty", "cut", "null", "an array", "bytes", "deep")],
    "tokenizer_config.json": [CONTENTS[kind] for kind in ("empty", "cut", "bytes", "deep")],
    "model.safetensors": [CONTENTS[kind] for kind in ("empty", "null", "bytes", "deep")],
    "modules.json": [CONTENTS[kind] for kind in ("empty", "null", "an array", "bytes", "deep")],
    "embedtrain.json": [CONTENTS[kind] for kind in ("empty", "null", "an array", "another object", "deep")],
    "sentence_bert_config.json": [CONTENTS[kind] for kind in ("empty", "an array", "bytes", "deep")],
    "config_sentence_transformers.json": [CONTENTS[kind] for kind in ("empty", "an array", "bytes", "deep")],
}


@pytest.mark.parametrize("name", MODEL_FILES)
def test_a_model_folder_with_a_damaged_file_is_named(name, tiny_bert, tmp_path):
    for number, content in enumerate(MODEL_FILES[name]):
        folder = shutil.copytree(tiny_bert, tmp_path / str(number))
        (folder / name).write_bytes(content)
        with pytest.raises(InputError, match=str(folder)):
            load_encoder(folder)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("num_hidden_layers", 1_000_000),
        ("num_hidden_layers", 10**15),
        ("vocab_size", 10**9),
        ("num_labels", 10**9),
        ("max_position_embeddings", 10**10),
        ("hidden_size", 10**8),
    ],
)
def test_a_config_of_a_model_that_the_weights_cannot_have_is_refused(key, value, tiny_bert, tmp_path):
    folder = shutil.copytree(tiny_bert, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {key: value}))
    with pytest.raises(InputError, match=r"config\.json (says|describes)"):
        load_encoder(folder)


@pytest.mark.parametrize("kind", ["empty", "null", "bytes", "deep"])
@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
def test_a_damaged_adapter_is_named(name, kind, tiny_bert, tmp_path):
    pytest.importorskip("peft")
    for file in (CONFIG, WEIGHTS):
        (tmp_path / file).write_bytes(b"{}")
    (tmp_path / name).write_bytes(CONTENTS[kind])
    with pytest.raises(InputError, match=str(tmp_path)):
        load_adapter(load_encoder(tiny_bert).backbone, tmp_path)


def test_aliases_that_unfold_to_little_are_read(tmp_path):
    (tmp_path / "a.yaml").write_text(yaml.safe_dump({"a": [1, 2], "b": [1, 2]}) + "c: &c [3]\nd: *c\n")
    assert read_yaml(tmp_path / "a.yaml", "")["d"] == [3]


SAVED = {
    "state.json": ["empty", "null", "an array", "another object", "bytes", "deep"],
    "dataset_info.json": ["empty", "an array", "bytes", "deep"],
    "data-00000-of-00001.arrow": ["empty", "null", "bytes", "a zip"],
}


@pytest.mark.parametrize("name", SAVED)
def test_a_saved_data_set_with_a_damaged_file_is_named(name, tmp_path):
    whole = tmp_path / "whole"
    datasets.Dataset.from_list([{"query": "a", "positive": "b"}]).save_to_disk(str(whole))
    for kind in SAVED[name]:
        folder = shutil.copytree(whole, tmp_path / kind)
        (folder / name).write_bytes(CONTENTS[kind])
        with pytest.raises(InputError, match=str(folder)) as refused:
            list(read_rows(folder))
        assert "\n" not in str(refused.value)


GUIDE = {
    "modules.json": ["empty", "null", "bytes", "deep"],
    "1_Pooling/config.json": ["empty", "null", "bytes", "deep"],
    "model.safetensors": ["empty", "bytes"],
}


@pytest.mark.parametrize("name", GUIDE)
def test_a_guide_with_a_damaged_file_is_named(name, tiny_bert, tmp_path):
    modules = [Transformer(str(tiny_bert)), Pooling(32, "mean"), Dense(32, 8, activation_function=nn.Tanh())]
    whole = tmp_path / "whole"
    SentenceTransformer(modules=modules, device="cpu").save(str(whole), create_model_card=False)
    for kind in GUIDE[name]:
        folder = shutil.copytree(whole, tmp_path / kind)
        assert (folder / name).exists()
        (folder / name).write_bytes(CONTENTS[kind])
        with pytest.raises(InputError, match=str(folder)) as refused:
            load_guide(str(folder))
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("kind", CONTENTS)
def test_a_damaged_file_of_a_store_is_left_alone(kind, tmp_path):
    key = key_of("a text")
    store = VectorStore(tmp_path / "store", identity="a" * 40, width=4)
    store.add([key], np.ones((1, 4), dtype=np.float32))
    (file,) = (path for path in (tmp_path / "store").rglob("*") if path.is_file())
    hostile = file.with_name(f"other{file.suffix}")
    hostile.write_bytes(CONTENTS[kind])
    again = VectorStore(tmp_path / "store", identity="a" * 40, width=4)
    there, vectors = again.find([key])
    assert there.tolist() == [True]
    assert vectors.tolist() == [[1, 1, 1, 1]]
    assert hostile.read_bytes() == CONTENTS[kind]
