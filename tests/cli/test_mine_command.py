"""embedtrain-mine as a person runs it: rows out, kills, shards, ranks, and mistakes."""

import json
import random
import signal
import time
from pathlib import Path

import pytest
from processes import as_torchrun, finish, free_port, send_signal, wait_until
from small_runs import command

from embedtrain.data.read.sources import read_examples
from embedtrain.mining import pipeline, teacher
from embedtrain.run.mine import shard_of
from embedtrain.types import InputError


@pytest.fixture
def words(tiny_bert, small_data, tmp_path):
    return [
        f"source={small_data}/train.jsonl",
        f"teacher.path={tiny_bert}",
        "selection.rules.0.perc_pos=0.99",
        f"out={tmp_path}/mined.jsonl",
    ]


def without_rules(words):
    """For options that have no first rule."""
    return [word for word in words if not word.startswith("selection.rules")]


def test_rows_statistics_and_what_is_shown(capsys, words, small_data, tmp_path):
    command("mine", *words)
    shown = capsys.readouterr().out
    before, after = read_examples(small_data / "train.jsonl"), read_examples(tmp_path / "mined.jsonl")
    assert [row[:2] for row in after] == [row[:2] for row in before]
    facts = json.loads((tmp_path / "mined.statistics.json").read_text("utf-8"))
    assert facts["rows_in"] == facts["rows_out"] == facts["rows"] == 64
    assert sum(facts["rows_with_negatives"].values()) == 64
    assert facts["negatives"] == sum(len(row.negatives) for row in after) > 0
    assert len(facts["teacher"]["identity"]) == 40
    assert facts["removed"]["perc_pos"]["count"] == facts["scores"]["removed_perc_pos"]["count"] > 0
    assert 0 < len(facts["suspects"]) <= 20
    assert facts["suspects"][0]["score"] >= 0.99 * facts["suspects"][0]["reference"]
    excess = [item["excess"] for item in facts["suspects"]]
    assert excess == sorted(excess, reverse=True)
    assert facts["peak_memory_mb"] > 0
    assert facts["texts_encoded_now"] == 128
    assert "removed by perc_pos" in shown
    command("mine", *words, "overwrite=true")
    again = json.loads((tmp_path / "mined.statistics.json").read_text("utf-8"))
    assert again["texts_encoded_now"] == 0, "vectors are kept"


def test_a_retrieval_set_and_a_corpus(words, small_data, tmp_path):
    command(
        "mine", *without_rules(words), "source=retrieval/find", f"data_root={small_data}", "selection=naive"
    )
    rows = read_examples(tmp_path / "mined.jsonl")
    assert [len(row.negatives) for row in rows] == [4] * 16
    corpus = f"corpus={small_data}/retrieval/find/corpus.jsonl"
    command("mine", *words, corpus, f"out={tmp_path}/other.parquet")
    texts = {json.loads(line)["text"] for line in (small_data / "retrieval/find/corpus.jsonl").open()}
    assert {text for row in read_examples(tmp_path / "other.parquet") for text in row.negatives} <= texts


def test_what_is_mined_is_trained_on(words, tmp_path, small_run):
    command("mine", *words)
    more = ["trainer.max_steps=2", "name=x", f"output_root={tmp_path}/runs"]
    command("train", *small_run, f"data.train={tmp_path}/mined.jsonl", *more)
    assert (tmp_path / "runs/x/model").is_dir()


def test_a_teacher_that_only_sentence_transformers_reads(tiny_bert, words, tmp_path):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer

    body = Transformer(str(tiny_bert))
    parts = [body, Pooling(32), Dense(32, 8), Normalize()]
    SentenceTransformer(modules=parts, device="cpu").save(str(tmp_path / "dense"))
    command("mine", *without_rules(words), f"teacher.path={tmp_path}/dense", "selection=naive")
    assert [len(row.negatives) for row in read_examples(tmp_path / "mined.jsonl")] == [4] * 64


@pytest.fixture
def small_parts(monkeypatch):
    """Parts of four texts."""
    monkeypatch.setitem(pipeline.stores_of.__kwdefaults__, "part", 4)


def mine_slowly(words):
    """Run by processes of tests: the same parts, each taking a moment, so that there is something to kill."""
    pipeline.stores_of.__kwdefaults__["part"] = 4
    embed = teacher.Teacher.embed

    def slowly(self, *given):
        time.sleep(0.05)
        return embed(self, *given)

    teacher.Teacher.embed = slowly
    command("mine", *words)


@pytest.fixture
def start(processes):
    return lambda words, **environment: processes.call(Path(__file__), "mine_slowly", words, **environment)


def written(store):
    """Bytes of vectors on disk: 84 a record of 32 coordinates."""
    return sum(path.stat().st_size for path in store.glob("*/*.vectors"))


def test_kills_while_encoding_cost_nothing_but_time(words, small_parts, start, tmp_path):
    store, draw = tmp_path / "killed", random.Random(5)
    again = [*words, f"store={store}", f"out={tmp_path}/killed.jsonl"]
    for _ in range(2):
        wanted = written(store) + draw.randrange(1, 12) * 4 * 84
        process = start(again)
        wait_until(lambda: written(store) >= wanted, process)  # noqa: B023
        send_signal(process, signal.SIGKILL)
        assert not (tmp_path / "killed.jsonl").exists(), "it was over before it could be killed"
    finish(start(again))
    command("mine", *words, f"store={tmp_path}/calm")
    assert (tmp_path / "killed.jsonl").read_bytes() == (tmp_path / "mined.jsonl").read_bytes()
    facts = json.loads((tmp_path / "killed.statistics.json").read_text("utf-8"))
    assert 0 < facts["texts_encoded_now"] < 128, "what was encoded before the kills is used"


def test_two_ranks_and_two_shards_give_the_rows_of_one(words, small_parts, start, tmp_path):
    two, port = [*words, f"out={tmp_path}/two.jsonl", f"store={tmp_path}/two"], free_port()
    started = [start(two, **as_torchrun(rank, 2, port)) for rank in range(2)]
    command("mine", *words, f"store={tmp_path}/one")
    finish(*started)
    expected = (tmp_path / "mined.jsonl").read_bytes()
    assert (tmp_path / "two.jsonl").read_bytes() == expected
    facts = json.loads((tmp_path / "two.statistics.json").read_text("utf-8"))
    assert 0 < facts["texts_encoded_now"] < 128, "each rank has a part"
    sharded = [*words, f"out={tmp_path}/sharded.jsonl", f"store={tmp_path}/sharded"]
    command("mine", *sharded, "shard=2/2")
    assert not (tmp_path / "sharded.jsonl").exists()
    command("mine", *sharded, "shard=1/2")
    command("mine", *sharded)
    assert (tmp_path / "sharded.jsonl").read_bytes() == expected
    facts = json.loads((tmp_path / "sharded.statistics.json").read_text("utf-8"))
    assert facts["texts_encoded_now"] == 0


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        (["teacher.path=nowhere/at-all"], ["teacher", "nowhere/at-all"]),
        (["selection.per_row=70", "selection.depth=80"], ["64 documents", "too few for 70"]),
        (["out=mined.csv"], ["mined.csv", ".jsonl, .jsonl.gz, .parquet"]),
        (["index=annoy"], ["exact, ivf, hnsw"]),
        (["own_negatives=both"], ["drop, keep", "both"]),
        (["shard=3/2"], ["shard=3/2", "shard=1/4"]),
        (["selection=naive"], ["rules must be a list", "selection=NAME"]),
        (["selection=perc_neg"], ["perc_neg", "perc_pos"]),
        (["selection.per_roww=3"], ["per_roww", "per_row"]),
        (["teachers=x"], ["teachers", "teacher"]),
        (["source=missing.jsonl"], ["missing.jsonl"]),
    ],
)
def test_mistakes(error_of, words, changes, parts):
    message = error_of("mine", *words, *changes)
    assert all(part in message for part in parts), message


def spoil(folder, small_data, bad):
    """The training rows with bad ones among them, and a corpus with one that is bad and one that is empty."""
    rows, corpus = folder / "rows.jsonl", folder / "corpus.jsonl"
    rows.write_text((small_data / "train.jsonl").read_text("utf-8") + "\n".join(bad) + "\n", "utf-8")
    texts = [{"text": f"a cat of {word}"} for word in "red green blue small big old".split()]
    lines = [json.dumps(row) for row in (*texts, {"text": ""})]
    corpus.write_text("\n".join([*lines, "{"]) + "\n", "utf-8")
    return [f"source={rows}", f"corpus={corpus}"]


def reported(folder):
    return [json.loads(line)["where"].rpartition("/")[2] for line in (folder / "bad_rows.jsonl").open()]


def test_bad_rows_are_left_out_once_by_shards_and_restarts(error_of, capsys, words, small_data, tmp_path):
    again = [*words, *spoil(tmp_path, small_data, ['{"query": ""}', "{"])]
    assert "rows.jsonl:65" in error_of("mine", *again)
    assert not (tmp_path / "mined.bad_rows").exists()
    assert "on_bad_row must be one of" in error_of("mine", *again, "on_bad_row=ignore")
    again.append("on_bad_row=quarantine")
    for shard in ("shard=1/2", "shard=2/2", "seed=0"):
        command("mine", *again, shard)
        assert reported(tmp_path / "mined.bad_rows") == ["rows.jsonl:65", "rows.jsonl:66", "corpus.jsonl:8"]
    assert len((tmp_path / "mined.bad_rows/quarantine.jsonl").read_text("utf-8").splitlines()) == 3
    facts = json.loads((tmp_path / "mined.statistics.json").read_text("utf-8"))
    assert facts["read"] == {
        "rows": {"rows": 66, "used": 64, "left_out": 2, "without_text": 0},
        "corpus": {"rows": 8, "used": 6, "left_out": 1, "without_text": 1},
    }
    assert facts["rows_in"] == facts["rows_out"] == 64 == len(read_examples(tmp_path / "mined.jsonl"))
    assert "bad rows: 3, in" in capsys.readouterr().out
    spoil(tmp_path, small_data, ["{"])
    command("mine", *again, "overwrite=true")
    assert reported(tmp_path / "mined.bad_rows") == ["rows.jsonl:65", "corpus.jsonl:8"], "begun again"


def test_an_output_that_is_there_is_kept(error_of, words, tmp_path):
    (tmp_path / "mined.jsonl").write_text("mine")
    statistics = {"out": "mined.jsonl", "rows_in": 1, "rows_out": 1, "teacher": {}}
    (tmp_path / "mined.statistics.json").write_text(json.dumps(statistics))
    assert "overwrite=true" in error_of("mine", *words)
    assert (tmp_path / "mined.jsonl").read_text() == "mine"


def test_shards_are_counted_from_one():
    assert shard_of(None) == (0, 1)
    assert shard_of("1/4") == (0, 4)
    assert shard_of("4/4") == (3, 4)
    for text in ("0/4", "5/4", "1", "a/b", "-1/2", "1/"):
        with pytest.raises(InputError, match="say which of how many"):
            shard_of(text)
