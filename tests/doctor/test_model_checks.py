"""What the doctor says of models, batches and losses with known defects."""

import copy
import math
from types import SimpleNamespace

import pytest
import torch
from data_modules import data_module
from pairs_of import whole
from small_runs import write_rows

from embedtrain.data.order.run_plan import Part
from embedtrain.doctor.built_run import BuiltRun, encoded, first_batches, paired
from embedtrain.doctor.first_loss import first_losses, judged, loss_finding
from embedtrain.doctor.memory import Memory, activation_bytes, estimated, memory_finding, padded
from embedtrain.doctor.negatives import mean_cosine, negative_findings, negatives_of
from embedtrain.doctor.probes import (
    attention_finding,
    cut_finding,
    padding_finding,
    prompt_findings,
    vector_findings,
)
from embedtrain.doctor.similarity_memory import LargestMoment, chunk_of, similarity_memory
from embedtrain.doctor.speed import Speed, forward_and_backward, mean_tokens, measured, speed_finding
from embedtrain.model.folder.export import load_encoder
from embedtrain.objective.losses.contrastive import InfoNCE
from embedtrain.objective.losses.scored import CoSENT
from embedtrain.objective.matryoshka import Objective
from embedtrain.objective.plan import FixedPairs
from embedtrain.objective.similarity.negatives import Negatives
from embedtrain.rules import MarginPos
from embedtrain.training.gradcache import GradCache
from embedtrain.training.steps.contrastive.batch_loss import BatchLoss
from embedtrain.training.steps.contrastive.collate import PairCollate
from embedtrain.types import Embeddings, Inputs, SubModel, distinct_layers

WORDS = "cat dog bird fish man woman child guitar piano ball tree house river sun rain money".split()


@pytest.fixture(scope="module")
def encoder(tiny_bert):
    return load_encoder(tiny_bert)


def written(folder, rows, name="rows"):
    path = folder / f"{name}.jsonl"
    write_rows(path, rows)
    return path


def usual_rows(count=16):
    return [
        {"query": f"{WORDS[n % 16]} {n}", "positive": f"the {WORDS[n % 16]} {n}", "negative": f"a {n}"}
        for n in range(count)
    ]


def run_of(encoder, tmp_path, rows, *, loss=None, negatives=None, batch_size=8, guide=None, **settings):
    plan = FixedPairs([[1, 8], [4, 32]], num_layers=4, width=32)
    batch_loss = BatchLoss(Objective(loss or InfoNCE()), negatives, guide=guide)
    data = data_module(
        train=str(written(tmp_path, rows)),
        batch_size=batch_size,
        seed=0,
        collate=PairCollate(encoder.process, None if guide is None else encoder.process),
    )
    data.setup()
    return BuiltRun(encoder, plan, batch_loss, data, **settings)


def begun(*args, read=None, **settings):
    """A run and its first batch, of which `read` rows are encoded."""
    run = run_of(*args, **settings)
    return run, *first_batches(run, read or settings.get("batch_size", 8))


def test_negatives_are_those_of_the_real_pairing(encoder, tmp_path):
    rows = usual_rows()
    rows[1] |= {"query": rows[0]["query"]}  # its positive is masked for row 0, and the other way round
    run, first = begun(encoder, tmp_path, rows, batch_size=16)
    found = negatives_of(run, first, None)
    expected = whole(paired(run, first, None)).blocks.query_docs.sum(1) - 1
    assert found.left.tolist() == expected.tolist()
    assert sorted(found.left.tolist()) == [30] * 2 + [31] * 14
    assert int(found.masked.sum()) == 2
    assert found.others.tolist() == [30] * 16
    first, masked = negative_findings(run, first, found)
    assert (first.level, first.facts["min"], first.facts["mean"]) == ("ok", 30, (2 * 30 + 14 * 31) / 16)
    assert (masked.level, masked.facts["masked"], masked.facts["of"]) == ("note", 2, 480)
    assert len(masked.examples) == 2
    assert all(f"rows.jsonl:{line}" in masked.examples[0] + masked.examples[1] for line in (1, 2))


def test_a_query_without_negatives_is_named(encoder, tmp_path):
    rows = [{"query": "cat", "positive": f"the {n}"} for n in range(8)]
    rows[5] = {"query": "dog", "positive": "x"}
    run, first = begun(encoder, tmp_path, rows)
    every = negative_findings(run, first, negatives_of(run, first, None))
    assert next(every).facts["min"] == 1
    alone, first = begun(encoder, tmp_path, usual_rows(8), negatives=Negatives(in_batch=False))
    found = negatives_of(alone, first, None)
    assert found.left.tolist() == [1] * 8
    none = found._replace(left=torch.zeros(8, dtype=torch.int64))
    assert next(negative_findings(alone, first, none)).level == "error"
    one = found._replace(left=torch.tensor([0] + [1] * 7))
    first = next(negative_findings(alone, first, one))
    assert first.level == "warning"
    assert len(first.examples) == 1


def test_rules_see_the_vectors_of_the_model(encoder, tmp_path):
    strict = Negatives(rules=[MarginPos(2.5, by="student")])  # everything is nearer than that
    run, first = begun(encoder, tmp_path, usual_rows(8), negatives=strict)
    found = negatives_of(run, first, encoded(run, first))
    assert found.left.tolist() == [0] * 8
    findings = list(negative_findings(run, first, found))
    assert [item.level for item in findings[:2]] == ["error", "warning"]
    assert findings[1].facts["share"] == 1.0
    loose = run_of(
        encoder, tmp_path, usual_rows(8), negatives=Negatives(rules=[MarginPos(-2.5, by="student")])
    )
    assert negatives_of(loose, first, encoded(loose, first)).left.tolist() == [15] * 8


def test_a_batch_is_cut_where_texts_are_encoded_and_counted_whole(encoder, tmp_path):
    run, first = begun(encoder, tmp_path, usual_rows(), read=4)
    assert first.cut
    assert (len(first.batch.links.query), len(first.whole.links.query)) == (4, 8)
    assert first.batch.links.rows.tolist() == first.whole.links.rows.tolist()[:4]
    assert len(negatives_of(run, first, None).left) == 8


@pytest.mark.parametrize("temperature", [0.05, 1.0])
def test_the_expected_loss_is_ln_candidates_whatever_the_temperature(encoder, tmp_path, temperature):
    run, first = begun(encoder, tmp_path, usual_rows(), loss=InfoNCE(temperature), batch_size=16)
    vectors = encoded(run, first)
    measured_loss, blind = first_losses(run, vectors)
    assert blind[SubModel(4, 32)] == pytest.approx(math.log(32), abs=1e-5)
    value = run.loss.objective(
        vectors.texts.rows(first.batch.links.query),
        vectors.texts.rows(first.batch.links.docs),
        vectors.pairing,
        first.chosen,
    )
    assert measured_loss == pytest.approx({sub: float(part) for sub, part in value.parts})
    found = loss_finding(run, vectors, negatives_of(run, first, None))
    assert found.facts["ln_candidates"] == pytest.approx(math.log(32))


def test_the_expected_loss_keeps_what_a_rule_left(encoder, tmp_path):
    rule = Negatives(rules=[MarginPos(0.0, by="student")])
    run, first = begun(encoder, tmp_path, usual_rows(), negatives=rule, batch_size=16)
    vectors = encoded(run, first)
    left = negatives_of(run, first, vectors).left
    assert 0 < int(left.sum()) < 16 * 31  # it removes some
    assert first_losses(run, vectors)[1][SubModel(4, 32)] == pytest.approx(
        float((left + 1).double().log().mean()), abs=1e-5
    )


def test_wrong_positives_and_a_low_temperature_are_worse_than_knowing_nothing(encoder, tmp_path):
    rows = usual_rows()
    for number, row in enumerate(rows):
        row["positive"], row["negative"] = f"{WORDS[-number]} rain", f"{row['query']}."
    run, first = begun(encoder, tmp_path, rows, loss=InfoNCE(0.002), batch_size=16)
    assert loss_finding(run, encoded(run, first), None).level == "warning"
    same = [{"query": f"{word} {word}", "positive": f"{word}  {word}"} for word in WORDS]
    easy, first = begun(encoder, tmp_path, same, loss=InfoNCE(0.002), batch_size=16)
    found = loss_finding(easy, encoded(easy, first), None)
    assert found.level == "warning"
    assert "nothing left to learn" in found.cure


@pytest.mark.parametrize(
    ("loss", "expected", "level"),
    [(1.0, 2.0, "ok"), (3.1, 2.0, "warning"), (0.03, 2.0, "warning"), (math.nan, 2.0, "error"),
     (5.0, math.nan, "ok"), (5.0, 0.0, "ok")],
)  # fmt: skip
def test_a_loss_is_judged(loss, expected, level):
    assert judged(loss, expected)[0] == level


def test_a_loss_of_scores_has_a_value_of_its_own(encoder, tmp_path):
    rows = [row | {"score": n / 16} for n, row in enumerate(usual_rows())]
    rows = [{key: value for key, value in row.items() if key != "negative"} for row in rows]
    run, first = begun(encoder, tmp_path, rows, loss=CoSENT(), batch_size=16)
    blind = first_losses(run, encoded(run, first))[1][SubModel(4, 32)]
    assert blind == pytest.approx(math.log(1 + 16 * 15 / 2), abs=1e-4)  # every ordered pair ties


def test_attention_padding_and_finite_vectors_of_a_good_model(encoder, sentences):
    assert attention_finding(encoder).level == "ok"
    assert padding_finding(encoder, sentences).level == "ok"
    subs = [SubModel(1, 8), SubModel(4, 32)]
    assert {item.level for item in vector_findings(encoder, subs, sentences)} <= {"ok", "note"}


def test_a_model_that_sees_padding_is_an_error(encoder, sentences):
    blind = copy.deepcopy(encoder)
    inner = blind.backbone.forward
    blind.backbone.forward = lambda tokens, layers: inner(
        Inputs(tokens.values, torch.ones_like(tokens.mask), tokens.prompt_len), layers
    )
    found = padding_finding(blind, sentences)
    assert found.level == "error"
    assert found.facts["largest_change"] > 1e-3


def test_attention_that_is_not_what_the_config_says_is_an_error(tiny_llama):
    causal = load_encoder(tiny_llama, pooling="mean")
    causal.backbone.attention = "bidirectional"
    assert attention_finding(causal).level == "error"


@pytest.mark.parametrize("include_prompt", [True, False])
def test_prompts_are_pooled_as_set(tiny_bert, sentences, include_prompt):
    encoder = load_encoder(tiny_bert, prompts={"query": "the man is "}, include_prompt=include_prompt)
    (found,) = prompt_findings(encoder, sentences)
    assert found.level == "ok"
    assert ("left out" in found.message) == (not include_prompt)
    encoder.process.include_prompt = not include_prompt
    skipped = encoder.process.read

    def stale(texts, role, prompts=None):
        """What a tokenizer would do that did not take notice of the setting."""
        encoder.process.include_prompt = include_prompt
        try:
            return skipped(texts, role, prompts)
        finally:
            encoder.process.include_prompt = not include_prompt

    encoder.process.read = stale
    (found,) = prompt_findings(encoder, sentences)
    assert found.level == "error"


def test_broken_and_collapsed_vectors(encoder, sentences):
    subs = [SubModel(4, 32)]
    broken = copy.deepcopy(encoder)
    broken.backbone.blocks[3].output.dense.weight.data[0, 0] = math.nan
    (found,) = vector_findings(broken, subs, sentences)
    assert (found.level, "[4]" in found.message) == ("error", True)
    alike = copy.deepcopy(encoder)
    alike.backbone.blocks[3].output.LayerNorm.weight.data *= 1e-4
    assert list(vector_findings(alike, subs, sentences))[-1].level == "warning"


def test_mean_cosine_is_that_of_all_pairs():
    vectors = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    table = torch.nn.functional.cosine_similarity(vectors[:, None], vectors[None], dim=-1)
    assert mean_cosine(vectors) == pytest.approx(float((table.sum() - 5) / 20), abs=1e-6)


def test_a_cut_is_compared_with_what_is_shipped(encoder, sentences, tmp_path, monkeypatch):
    assert cut_finding(encoder, SubModel(2, 16), sentences, tmp_path).level == "ok"

    def other(folder, **how):
        read = load_encoder(folder, **how)
        next(read.backbone.parameters()).data += 1.0
        read.backbone.blocks[0].output.dense.weight.data *= 2
        return read

    monkeypatch.setattr("embedtrain.doctor.probes.load_encoder", other)
    assert cut_finding(encoder, SubModel(2, 8), sentences, tmp_path).level == "error"


def test_activations_are_what_autograd_keeps():
    weight = torch.nn.Linear(8, 8, bias=False)

    class Run(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = weight

        def forward(self, tokens, layers):
            return self.inner(tokens).exp()

    # the input of the product, and what exp makes
    assert activation_bytes(Run(), torch.zeros(5, 8), [1]) == 2 * 5 * 8 * 4
    with torch.no_grad():
        assert activation_bytes(Run(), torch.zeros(5, 8), [1]) == 0


def test_memory_grows_with_the_batch_and_not_with_gradcache(encoder, tmp_path):
    small = run_of(encoder, tmp_path, usual_rows(64), batch_size=8)
    large = run_of(encoder, tmp_path, usual_rows(64), batch_size=64)
    chunked = large._replace(gradcache=GradCache(max_tokens=64))
    shared = large._replace(ranks=2)
    found = [estimated(item, first_batches(item, 8)) for item in (small, large, chunked, shared)]
    weights = sum(item.numel() * 4 for item in encoder.parameters())
    assert [item.weights for item in found] == [weights] * 4
    trained = sum(item.numel() * 4 for item in encoder.parameters() if item.requires_grad)
    assert (found[0].gradients, found[0].optimiser) == (trained, 2 * trained)
    assert 6 < found[1].activations / found[0].activations < 10
    assert found[2].activations < found[1].activations / 4
    assert found[3].activations == pytest.approx(found[1].activations / 2, rel=0.1)
    assert found[1].total == sum(found[1])
    process = estimated(small, first_batches(small, 8), weights + 1000.0)
    assert (process.process, process.total) == (1000.0, found[0].total + 1000.0)


def test_casts_of_weights_count_once_a_micro_batch(encoder, tmp_path):
    """Autocast keeps its own bfloat16 weights for each forward, which tokens do not multiply."""
    run = run_of(encoder, tmp_path, usual_rows(64), batch_size=64)
    run = run._replace(autocast=lambda: torch.autocast("cpu", torch.bfloat16, cache_enabled=False))
    first = first_batches(run, 64)
    rows = first[0].batch.inputs
    found = {}
    for budget in (256, 1_024, 1_000_000):
        encoder.max_tokens = budget
        with run.autocast():
            actual = activation_bytes(encoder, rows, distinct_layers(first[0].chosen))
        found[budget] = estimated(run, first).activations / actual
    assert found == pytest.approx(dict.fromkeys(found, 1.0), rel=0.15)


def test_the_largest_moment_is_what_lives_at_a_time():
    given = torch.ones(1_000)
    with LargestMoment() as seen:
        one = given * 2  # 4,000 bytes
        two = one + 1  # and 4,000 more
        del one
        three = two * 3
        view = three[:10]  # no memory of its own
        two.add_(1)
        del two
        assert seen.live == 4_000
        del three, view
    assert (seen.peak, seen.live) == (8_000, 0)


@pytest.mark.parametrize("words", [{}, {"similarity_budget": 20 * 128}])
def test_similarities_take_what_is_estimated(words, encoder, tmp_path):
    """Of all queries in one chunk, and in chunks of twenty; the slope was found in smaller ones."""
    run = run_of(encoder, tmp_path, usual_rows(64), batch_size=64)
    run.loss.objective.budget = words.get("similarity_budget")
    first = first_batches(run, 64)[0]
    links, layers = first.whole.links, distinct_layers(first.chosen)
    values = torch.randn(len(layers), len(links.content_ids), encoder.width).requires_grad_()
    texts, pairing = Embeddings(values, layers), Negatives()(links)
    with LargestMoment() as seen:
        total = run.loss.objective(
            texts.rows(links.query), texts.rows(links.docs), pairing, first.chosen
        ).total
        torch.autograd.grad(total, values)
    found, columns = similarity_memory(run, first), len(links.docs)
    rows = chunk_of(run, first, columns)
    assert rows == (20 if words else 64)
    estimate = found.of(rows, columns) + found.per_text * len(links.content_ids)
    assert 0.8 < estimate / seen.peak < 1.25
    need = estimated(run, [first])
    assert need.similarities == found.of(rows, columns)


def test_frozen_weights_have_no_gradient(tiny_bert, tmp_path):
    frozen = load_encoder(tiny_bert, freeze_blocks=4, freeze_embeddings=True)
    run = run_of(frozen, tmp_path, usual_rows())
    found = estimated(run, first_batches(run, 8))
    assert found.gradients == found.optimiser == 0
    assert found.weights > 0


def test_memory_beyond_the_machine_is_a_warning(encoder, tmp_path):
    run = run_of(encoder, tmp_path, usual_rows())
    need = Memory(*[100.0] * 10)
    assert memory_finding(run, need, 2_199, 1).level == "ok"
    found = memory_finding(run, need, 2_199, 2)
    assert (found.level, "gradcache=chunks" in found.cure) == ("warning", True)
    assert "smaller chunks" in memory_finding(run._replace(gradcache=GradCache()), need, 100, 1).cure


def test_padding_counts_by_micro_batch():
    assert padded([4, 4, 2], 8) == 4 + 4 + 2
    assert padded([4, 2], 8) == 8


@pytest.mark.parametrize("cache", [None, GradCache(max_tokens=32)])
def test_a_measured_step_changes_nothing(encoder, tmp_path, cache):
    run, first = begun(encoder, tmp_path, usual_rows(), gradcache=cache)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    steps = []
    handle = encoder.register_full_backward_hook(lambda *_: steps.append(1)) if cache is None else None
    speed = measured(run, first)
    if handle is not None:
        handle.remove()
        assert len(steps) == 3  # one to warm up, two measured
    assert speed.tokens > 0
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    assert all(item.grad is None for item in encoder.parameters())


@pytest.mark.parametrize("cache", [None, GradCache(max_tokens=32)])
def test_a_measured_step_reaches_the_weights(encoder, tmp_path, monkeypatch, cache):
    run, first = begun(encoder, tmp_path, usual_rows(), gradcache=cache)
    reached = []

    def note(self, **_):
        reached.extend(item.grad is not None and bool(item.grad.any()) for item in self.parameters())
        torch.nn.Module.zero_grad(self)

    monkeypatch.setattr(type(encoder), "zero_grad", note)
    forward_and_backward(run, first)
    assert sum(reached) > 0.9 * len(reached)


def test_the_time_of_a_run(encoder, tmp_path):
    run, first = begun(encoder, tmp_path, usual_rows(), accumulate=2)
    tokens = int(first.whole.inputs.mask.sum())
    part = run.data.parts
    found = speed_finding(run, [first], Speed(tokens / 3.0, 0.5), part, 0)
    assert found.facts["seconds_per_step"] == pytest.approx(2 * 3.5)
    assert found.facts["seconds"] == pytest.approx(7.0 * run.data.total_steps // 2)
    assert (found.level, found.facts["share_of_data"]) == ("note", pytest.approx(1 / 7))
    ahead = speed_finding(run, [first], Speed(tokens / 3.0, 0.5), part, 2)
    assert (ahead.level, ahead.facts["share_of_data"]) == ("ok", 0.0)


def test_tokens_are_weighed_by_how_often_a_dataset_trains():
    def first(task, count):
        mask = torch.ones(1, count, dtype=torch.bool)
        return SimpleNamespace(task=task, whole=SimpleNamespace(inputs=SimpleNamespace(mask=mask)))

    parts = [Part("a", 1, 1, 3, 3, 0), Part("b", 1, 1, 1, 1, 0)]
    assert mean_tokens([first("a", 10), first("b", 50)], parts) == 20
    assert mean_tokens([first("all datasets", 10)], parts) == 10
