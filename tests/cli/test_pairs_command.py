"""embedtrain-pairs as a person runs it: rows, statistics, kills, a generator, and mistakes."""

import json

import pytest
from small_runs import command, read_rows, write_rows
from transformers import AutoConfig

import embedtrain
from embedtrain.data.read.sources import read_examples
from embedtrain.making.generated import Generated
from embedtrain.making.spans import InverseCloze
from embedtrain.settings.places import config_dir
from embedtrain.types import InputError

MAKERS = sorted(path.stem for path in config_dir("conf").glob("maker/*.yaml"))


@pytest.fixture
def documents(tmp_path):
    """Twelve documents that link to each other, with translations."""
    words = [
        "cat",
        "dog",
        "bird",
        "fish",
        "man",
        "woman",
        "child",
        "guitar",
        "piano",
        "ball",
        "tree",
        "house",
    ]
    rows = [
        {
            "id": word,
            "title": f"The {word}",
            "text": f"# The {word}\n\nA {word} sleeps in the sun. The {word} {n} eats rain.\n\n## More\n\nIt "
            f"plays with [another one]({words[n - 1]}) by the river. A {word} sings. It runs to {n} trees.",
            "translation": f"{word} {word}",
        }
        for n, word in enumerate(words)
    ]
    return write_rows(tmp_path / "documents.jsonl", rows)


@pytest.fixture(scope="session")
def writers(tiny_llama, tmp_path_factory):
    """Folders of a tiny causal model and of a tiny seq2seq one."""
    from transformers import AutoTokenizer, T5Config, T5ForConditionalGeneration

    folder, tokenizer = tmp_path_factory.mktemp("t5"), AutoTokenizer.from_pretrained(tiny_llama)
    size = {
        "d_model": 16,
        "d_kv": 8,
        "d_ff": 16,
        "num_layers": 1,
        "num_heads": 2,
        "vocab_size": len(tokenizer),
    }
    ends = {"decoder_start_token_id": 0, "pad_token_id": tokenizer.pad_token_id, "eos_token_id": None}
    T5ForConditionalGeneration(T5Config(**size, **ends)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    from transformers import LlamaForCausalLM

    causal = tmp_path_factory.mktemp("causal")
    LlamaForCausalLM(AutoConfig.from_pretrained(tiny_llama)).save_pretrained(causal)
    tokenizer.save_pretrained(causal)
    return {"causal": causal, "seq2seq": folder}


def words_of(documents, folder, *more):
    return [f"source={documents}", f"out={folder}/pairs.jsonl", *more]


@pytest.mark.parametrize("name", MAKERS)
def test_every_maker_writes_rows_that_training_reads(name, documents, writers, tmp_path, capsys):
    more = [f"maker.path={writers['causal']}", "maker.max_new_tokens=4"] if name == "generated" else []
    more += ["maker.common=1.0"] if name == "representative_words" else []
    more += ["maker.words=12"] if name in ("body_first", "neighbours") else []
    command("pairs", *words_of(documents, tmp_path, f"maker={name}", *more))
    rows, shown = read_examples(tmp_path / "pairs.jsonl"), capsys.readouterr().out
    facts = json.loads((tmp_path / "pairs.statistics.json").read_text("utf-8"))
    assert len(rows) == facts["pairs"] > 0
    assert {row.task for row in rows} == {name}
    assert facts["documents"] == 12
    assert 0 < facts["documents_with_pairs"] <= 12
    assert 0 < len(facts["examples"]) <= 10
    assert {row["query"] for row in facts["examples"]} <= {row.query for row in rows}
    assert facts["words_of_queries"]["mean"] > 0
    assert f"{len(rows)} pairs of {facts['documents_with_pairs']} of 12 documents" in shown
    before = (tmp_path / "pairs.jsonl").read_bytes()
    command("pairs", *words_of(documents, tmp_path, f"maker={name}", *more, "overwrite=true"))
    assert (tmp_path / "pairs.jsonl").read_bytes() == before


def test_what_is_made_is_trained_on(documents, small_run, tmp_path):
    command("pairs", *words_of(documents, tmp_path, "maker=title", f"out={tmp_path}/pairs.parquet"))
    more = ["trainer.max_steps=1", "name=x", f"output_root={tmp_path}/runs", "data.batch_size=4"]
    command("train", *small_run, *more, f"data.train={tmp_path}/pairs.parquet")
    assert (tmp_path / "runs/x/model").is_dir()


def test_pairs_that_a_model_does_not_find_again_are_left_out(documents, tiny_bert, tmp_path, capsys):
    command("pairs", *words_of(documents, tmp_path, "maker=title"))
    every = read_rows(tmp_path / "pairs.jsonl")
    more = [f"check_with={tiny_bert}", f"out={tmp_path}/checked.jsonl", f"store={tmp_path}/store"]
    command("pairs", *words_of(documents, tmp_path, "maker=title", *more))
    some = read_rows(tmp_path / "checked.jsonl")
    facts = json.loads((tmp_path / "checked.statistics.json").read_text("utf-8"))
    assert [row for row in every if row in some] == some
    assert facts["left_out_by_check"] == len(every) - len(some) > 0
    assert len(facts["examples_left_out"]) == min(10, len(every) - len(some))
    assert "not found again" in capsys.readouterr().out
    command("pairs", *words_of(documents, tmp_path, "maker=title", *more, "check_rank=12", "overwrite=true"))
    assert read_rows(tmp_path / "checked.jsonl") == every


@pytest.mark.parametrize("kind", ["causal", "seq2seq"])
def test_a_generator_that_is_killed_goes_on(kind, documents, writers, tmp_path, monkeypatch):
    words = words_of(
        documents, tmp_path, "maker=generated", f"maker.path={writers[kind]}", "maker.max_new_tokens=4"
    )
    command("pairs", *words)
    whole, calls = (tmp_path / "pairs.jsonl").read_bytes(), []
    pairs = Generated.pairs

    def counted(self, document, draw):
        if len(calls) == 5:
            raise KeyboardInterrupt
        calls.append(document.name)
        return pairs(self, document, draw)

    monkeypatch.setattr(Generated, "pairs", counted)
    again = [*words, f"out={tmp_path}/killed.jsonl"]
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        command("pairs", *again)
    kept = tmp_path / "killed.unfinished.jsonl"
    assert len(read_rows(kept)) == 5
    kept.write_bytes(kept.read_bytes()[:-7])  # as a kill in the middle of a line
    monkeypatch.setattr(
        Generated,
        "pairs",
        lambda self, document, draw: calls.append(document.name) or pairs(self, document, draw),
    )
    command("pairs", *again)
    assert (tmp_path / "killed.jsonl").read_bytes() == whole
    assert len(calls) == 5 + 8, "the four whole lines serve"
    assert not kept.exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["source=nowhere"], "nowhere: no such file or folder"),
        (["source=[]"], "source must be a file or folder of documents"),
        (["out=ROOT/pairs.txt"], "its name must end in .jsonl"),
        (["out=DOCUMENTS"], "is what rows are read from: choose another out"),
        (["columns={query: x}"], "'query' is no field of a document"),
        (["maker.words=0"], "words must be 1 or more"),
        (["maker=generated", "maker.path=ROOT/none"], "none"),
        (["maker=generated", "maker.path=BERT", "maker.prompt=nothing"], "prompt must hold {text}"),
        (["maker=generated", "maker.path=BERT"], "is no model that writes texts: it has no cls.predictions."),
        (["maker=links", "maker.least=99"], "maker=links makes no pair of these 12 documents"),
        (["check_with=ROOT/none"], "none"),
        (["check_rank=0"], "check_rank must be 1 or more"),
        (["device=cuda:9"], "device=cuda:9 is not there"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(words, message, documents, tiny_bert, tmp_path, error_of):
    def filled(text):
        return (
            text.replace("ROOT", str(tmp_path))
            .replace("DOCUMENTS", str(documents))
            .replace("BERT", str(tiny_bert))
        )

    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert filled(message) in error_of("pairs", *words_of(documents, tmp_path), *map(filled, words))
    after = {
        path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".lock"
    }
    assert {path: content for path, content in after.items() if path.parent.name != "vectors"} == before


def test_a_model_to_check_with_is_looked_for_before_pairs_are_made(
    documents, tmp_path, error_of, monkeypatch
):
    monkeypatch.setattr(InverseCloze, "pairs", lambda *_: pytest.fail("pairs were made"))
    assert "none" in error_of(
        "pairs", *words_of(documents, tmp_path, "maker=inverse_cloze", "check_with=none")
    )


def test_bad_rows_are_left_out_and_reported(documents, tmp_path, error_of, capsys):
    documents.write_text(documents.read_text("utf-8") + "{\n" + '{"text": 3}\n', "utf-8")
    assert "documents.jsonl:13" in error_of("pairs", *words_of(documents, tmp_path))
    command("pairs", *words_of(documents, tmp_path, "on_bad_row=quarantine"))
    assert json.loads((tmp_path / "pairs.statistics.json").read_text("utf-8"))["bad_rows"] == 2
    assert (tmp_path / "pairs.bad_rows").is_dir()
    shown = capsys.readouterr().out
    assert "bad rows: 2" in shown
    assert f"embedtrain-train name=pairs data.train={tmp_path}/pairs.jsonl" in shown.replace("\n", "")


def test_in_python_the_statistics_come_back(documents, tmp_path):
    made = embedtrain.pairs(documents, tmp_path / "pairs.jsonl", maker={"per_document": 1, "words": 30})
    assert made.rows == tmp_path / "pairs.jsonl"
    assert made.statistics["pairs"] == len(read_rows(made.rows))
    with pytest.raises(InputError, match="exists already"):
        embedtrain.pairs([documents], tmp_path / "pairs.jsonl")
