"""A whole run on a mixture: a loss for each dataset, its metrics, and bad rows that are reported."""

import json

import pytest
from small_runs import command, read_rows

TERM = "{{_target_: embedtrain.objective.losses.terms.Term, loss: {{_target_: {loss}}}, tasks: [{task}]}}"


@pytest.fixture
def words(small_run, small_data, tmp_path):
    """Pairs, scored pairs with a row that cannot be used, and pairs without in-batch negatives."""
    pairs = read_rows(small_data / "train.jsonl")
    scored = [
        {"sentence1": row["query"], "sentence2": row["positive"], "score": place / 16}
        for place, row in enumerate(pairs[:16])
    ]
    own = [{**row, "negative": pairs[place - 1]["positive"]} for place, row in enumerate(pairs[16:32])]
    for name, rows in (("scored", scored), ("own", own)):
        lines = [json.dumps(row) for row in rows]
        (tmp_path / f"{name}.jsonl").write_text("\n".join([*lines, '{"query": "no positive"}', ""]), "utf-8")
    sources = [
        f"{{source: {small_data}/train.jsonl, task: pairs, cap: 32}}",
        f"{{source: {tmp_path}/scored.jsonl, task: scored, batch_size: 4}}",
        f"{{source: {tmp_path}/own.jsonl, task: own, in_batch: false, epochs: 2}}",
    ]
    terms = [
        TERM.format(loss="embedtrain.objective.losses.contrastive.InfoNCE", task="pairs, own"),
        TERM.format(loss="embedtrain.objective.losses.scored.CoSENT", task="scored"),
    ]
    more = "loss=weighted_sum data.on_bad_row=skip trainer.accumulate_grad_batches=2 name=mixture".split()
    parts = [f"data.train=[{', '.join(sources)}]", f"loss.terms=[{', '.join(terms)}]"]
    return [*small_run, *more, *parts, f"output_root={tmp_path}/runs"]


def test_every_dataset_trains_with_its_loss_and_shows_up(words, tmp_path):
    command("train", *words)
    folder = tmp_path / "runs" / "mixture"
    lines = read_rows(folder / "metrics.jsonl")
    assert len(lines) == 6  # (4 + 4 + 2 x 2) / 2
    shown = {key.split("/")[1] for line in lines for key in line if key.count("/") == 2}
    assert {"pairs", "own"} <= shown
    assert all(line["train/loss"] > 0 for line in lines)
    report = folder / "bad_rows/bad_rows.jsonl"
    reported = read_rows(report)
    assert [row["where"] for row in reported] == [f"{tmp_path}/{name}.jsonl:17" for name in ("scored", "own")]
    command("train", *words, "overwrite=true")
    assert read_rows(report) == reported
