"""Rows that teach nothing are refused, or counted, before the first step."""

import logging
import shutil

import pytest
from small_runs import compose, without, write_rows
from transformers import AutoTokenizer

from embedtrain.run.run import Run
from embedtrain.settings.stages import OF_TEXTS, stages_of
from embedtrain.types import InputError


def build(words, tmp_path, rows, *more):
    path = write_rows(tmp_path / "rows.jsonl", rows)
    settings = [*without(words, "data.train"), f"data.train={path}", "name=x", f"output_root={tmp_path}/runs"]
    run = Run(compose([*settings, *more]))
    run.folder.release()
    return run


PAIRS = [{"query": f"a cat {n}", "positive": f"a dog {n}"} for n in range(16)]


def scored(*scores):
    return [row | {"score": score} for row, score in zip(PAIRS, scores * 16, strict=False)]


@pytest.mark.parametrize("scores", [(1.0,), (1.0, 1.0 + 1e-12)])
def test_scores_without_an_order_are_refused(scores, small_run, tmp_path):
    with pytest.raises(InputError, match=r"scores give no order"):
        build(small_run, tmp_path, scored(*scores), "loss=cosent")


def test_scores_that_float32_makes_equal_are_counted(small_run, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        build(small_run, tmp_path, scored(0.5, 1.0, 1.0 + 1e-12), "loss=cosent")
    assert "of 3 different scores looked at 2 are left in float32" in caplog.text


def test_scores_that_no_loss_reads_are_refused(small_run, tmp_path):
    with pytest.raises(InputError, match=r"have scores or labels and no loss reads them.*use loss=cosent"):
        build(small_run, tmp_path, scored(1.0))


@pytest.mark.parametrize("text", ["\u200b\u200b", " \u2060\ufeff ", "\u00ad"])
def test_a_text_without_width_is_a_bad_row(text, small_run, tmp_path):
    with pytest.raises(InputError, match=r"rows\.jsonl:17: 'query' is an empty text"):
        build(small_run, tmp_path, [*PAIRS, {"query": text, "positive": "b"}])


def test_texts_cut_to_special_tokens_are_refused(small_run, tmp_path):
    with pytest.raises(InputError, match=r"of all 32 texts looked at no token is left.*backbone\.max_length"):
        build(small_run, tmp_path, PAIRS, "+backbone.max_length=2")


def test_texts_without_a_token_are_counted(small_run, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        build(small_run, tmp_path, [*PAIRS, {"query": "\x01\x02", "positive": "a b"}])
    assert "of 1 of 34 texts looked at no token is left, e.g. '\\x01\\x02'" in caplog.text


@pytest.mark.parametrize("include", ["true", "false"])
def test_a_prompt_that_leaves_no_room_is_refused(include, small_run, tmp_path):
    prompt = " ".join(["the old man"] * 40)
    words = [f"+backbone.prompts={{query: '{prompt}'}}", f"+backbone.include_prompt={include}"]
    with pytest.raises(InputError, match=r"leaves no room for a text"):
        build(small_run, tmp_path, PAIRS, *words)


@pytest.mark.parametrize("special", [False, True])
def test_words_without_an_embedding_are_refused_before_training(special, tiny_bert, small_run, tmp_path):
    folder = shutil.copytree(tiny_bert, tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["[NEW]"], special_tokens=special)
    tokenizer.save_pretrained(folder)
    rows = [*PAIRS, {"query": "a [NEW] cat", "positive": "b"}]
    words = without(small_run, "backbone.path")
    with pytest.raises(
        InputError, match=r"1 words of the tokenizer .*'\[(NEW|new)\]'.*: the.*resize_token_embeddings"
    ):
        build(words, tmp_path, rows, f"backbone.path={folder}")
    if special:  # as the sign of a picture, which no text has
        build(words, tmp_path, PAIRS, f"backbone.path={folder}")


@pytest.mark.parametrize(
    "word",
    "loss=cosent distill=layer_kl queue=documents gradcache=chunks mining=refresh negatives=own".split(),
)
def test_groups_of_pairs_are_refused_for_a_masked_stage(word, small_run):
    words = [*small_run, "name=x"]
    with pytest.raises(InputError, match=rf"^{word.partition('=')[0]} is of pairs, and step=masked"):
        stages_of(compose([*words, "step=masked", word]))
    group, _, name = word.partition("=")
    entries = f"stages=[{{name: a, step: masked, {group}: {name}}}, {{name: b}}]"
    with pytest.raises(InputError, match=rf"^stages\[0\].*{group} is of pairs"):
        stages_of(compose([*words, entries]))
    assert len(stages_of(compose([*words, word, "stages=[{name: a, step: masked}, {name: b}]"]))) == 2


@pytest.mark.parametrize("step", OF_TEXTS)
def test_weights_spread_over_ranks_are_refused_for_texts_alone(step, small_run):
    words = [*small_run, "name=x", "trainer.shard=true"]
    said = f"step={step} needs whole weights on each rank: use it without trainer.shard"
    with pytest.raises(InputError, match=f"^{said}"):
        stages_of(compose([*words, f"step={step}"]))
    with pytest.raises(InputError, match=rf"^stages\[0\]: {said}"):
        stages_of(compose([*words, f"stages=[{{name: a, step: {step}}}, {{name: b}}]"]))
    assert stages_of(compose([*words, "step=simcse"]))
