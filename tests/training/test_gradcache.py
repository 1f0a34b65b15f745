"""The parts of GradCache that the table of test_invariance does not see."""

import pytest
import torch
from torch import nn

from embedtrain.model.folder.export import load_encoder
from embedtrain.training.gradcache import GradCache
from embedtrain.training.steps.contrastive.batch_loss import BatchLoss
from embedtrain.types import Embeddings, InputError, Inputs, distinct_layers


def tokens(*lengths):
    width = max(lengths)
    mask = torch.arange(width)[None, :] < torch.tensor(lengths)[:, None]
    return Inputs(mask.long(), mask, torch.zeros(len(lengths), dtype=torch.int64))


def test_chunks_are_sorted_by_length_and_within_the_budget():
    given = tokens(3, 9, 1, 4, 9, 2)
    chunks = [chunk.tolist() for chunk in GradCache(max_tokens=10).chunks(given)]
    assert chunks == [[1], [4], [3, 0], [5, 2]]
    assert [chunk.tolist() for chunk in GradCache(mini_batch_size=4).chunks(given)] == [[0, 1, 2, 3], [4, 5]]


@pytest.mark.parametrize("settings", [{"max_tokens": 0}, {"mini_batch_size": -1}])
def test_a_chunk_holds_something(settings):
    (name,) = settings
    with pytest.raises(InputError, match=f"{name} must be 1 or more"):
        GradCache(**settings)


class Watched(nn.Module):
    """An encoder that writes down what it gave, and whether it kept a graph."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.given = inner, []

    def forward(self, given, layers):
        texts = self.inner(given, layers)
        self.given.append((texts.values.detach().clone(), texts.values.requires_grad))
        return texts


def cached_step(two_ranks, encoder, cache, **settings):
    """Gradient of one step of InfoNCE; the number of backwards before the last."""
    batch, backwards = two_ranks.batch_of(0, 1), []
    loss = BatchLoss(two_ranks.objective_of("infonce"))
    chosen = two_ranks.PLANS["fixed_pairs"](0)

    def backward(surrogate):
        backwards.append(surrogate.item())
        surrogate.backward()

    def score(texts: Embeddings):
        return loss(texts, batch, chosen, 0, identical=True)[0].total

    given = {"owned": [], "seed": lambda chunk: 7 + chunk, **settings}
    last = cache(encoder, batch.inputs, distinct_layers(chosen), score, backward=backward, **given)
    if last.requires_grad:
        last.backward()
    return backwards, last


def test_dropout_is_the_same_in_both_passes(two_ranks):
    encoder = Watched(two_ranks.TinyEncoder(dropout=0.3).train())
    backwards, _ = cached_step(two_ranks, encoder, GradCache(mini_batch_size=4))
    half = len(encoder.given) // 2
    first, second = encoder.given[:half], encoder.given[half:]
    assert half > 3
    assert len(backwards) == half - 1
    for (values, graph), (again, graph_again) in zip(first, second, strict=True):
        assert torch.equal(values, again)
        assert (graph, graph_again) == (False, True)
    calm = Watched(two_ranks.TinyEncoder(dropout=0.3).eval())
    cached_step(two_ranks, calm, GradCache(mini_batch_size=4))
    assert not torch.equal(calm.given[0][0], first[0][0]), "there was no dropout at all"


def test_with_dropout_the_gradient_is_that_of_the_same_draws_at_once(two_ranks):
    """Against one graph over all chunks, each seeded as the cache seeds it."""
    cached, whole = (two_ranks.TinyEncoder(dropout=0.3).train() for _ in range(2))
    cached_step(two_ranks, cached, GradCache(mini_batch_size=4))
    batch, chosen = two_ranks.batch_of(0, 1), two_ranks.PLANS["fixed_pairs"](0)
    parts = []
    for number, rows in enumerate(GradCache(mini_batch_size=4).chunks(batch.inputs)):
        torch.manual_seed(7 + number)
        parts.append(whole(batch.inputs.rows(rows), distinct_layers(chosen)).values)
    texts = Embeddings(torch.cat(parts, dim=1), distinct_layers(chosen))
    BatchLoss(two_ranks.objective_of("infonce"))(texts, batch, chosen, 0)[0].total.backward()
    for mine, theirs in zip(cached.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=0, atol=1e-10)


def test_frozen_parts_get_no_gradient_and_a_frozen_encoder_runs_once(two_ranks):
    encoder = two_ranks.TinyEncoder()
    encoder.table.requires_grad_(False)
    cached_step(two_ranks, encoder, GradCache(mini_batch_size=4))
    assert encoder.table.weight.grad is None
    assert all(item.grad is not None for item in encoder.blocks.parameters())
    frozen = Watched(two_ranks.TinyEncoder().requires_grad_(False))
    backwards, last = cached_step(two_ranks, frozen, GradCache(mini_batch_size=100))
    assert (len(frozen.given), backwards, last.requires_grad) == (1, [], False)


def test_checkpointed_blocks_give_the_same_gradient(two_ranks):
    from torch.utils.checkpoint import checkpoint

    class Saving(two_ranks.TinyEncoder):
        def forward(self, given, layers):
            run = super().forward
            return Embeddings(
                checkpoint(lambda: run(given, layers).values, use_reentrant=False), tuple(layers)
            )

    plain, saving = two_ranks.TinyEncoder(dropout=0.3).train(), Saving(dropout=0.3).train()
    for encoder in (plain, saving):
        cached_step(two_ranks, encoder, GradCache(mini_batch_size=4))
    for mine, theirs in zip(saving.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=0, atol=1e-12)


def test_nothing_of_the_loss_outlives_it(two_ranks):
    """While chunks are encoded again, no tensor of all texts is alive but each layer's gradient."""
    import gc

    alive = []

    class Counting(two_ranks.TinyEncoder):
        def forward(self, given, layers):
            if torch.is_grad_enabled() and not alive:  # once: it looks at every object there is
                gc.collect()
                tensors = [item for item in gc.get_objects() if isinstance(item, torch.Tensor)]
                everyone = two_ranks.batch_of(0, 1).inputs.values.shape[0]
                alive.append(sum(item.shape[:2] == (3, everyone) for item in tensors))
                alive.append(sum(item.ndim == 2 and len(item) == everyone for item in tensors))
            return super().forward(given, layers)

    cached_step(two_ranks, Counting(), GradCache(mini_batch_size=4))
    whole, by_layer = alive
    assert whole == 0
    assert by_layer >= 3  # what else has a row for each text is its tokens


ENCODERS = {
    "plain": {},
    "checkpointing": {"gradient_checkpointing": True},
    "lora": {"lora": {"rank": 4}},
    "lora_checkpointing": {"lora": {"rank": 4}, "gradient_checkpointing": True},
    "frozen_blocks": {"freeze_embeddings": True, "freeze_blocks": 2},
}


@pytest.mark.parametrize("kind", ENCODERS)
def test_real_encoders_with_dropout(tiny_bert, sentences, kind):
    """Against one graph over all chunks with the same draws; frozen, adapted, recomputed parts."""
    torch.manual_seed(3)
    encoder = load_encoder(tiny_bert, pooling="mean", dtype=torch.float64, **ENCODERS[kind]).train()
    trained = [item for item in encoder.parameters() if item.requires_grad]
    given, cache, layers = encoder.process(sentences, "document"), GradCache(max_tokens=40), (2, 4)

    def score(texts: Embeddings):
        unit = torch.nn.functional.normalize(texts.values, dim=-1)
        return (unit @ unit.transpose(1, 2) / 0.1).logsumexp(-1).mean()

    def gradients():
        found = [item.grad for item in trained]
        encoder.zero_grad()
        return found

    chunks = cache.chunks(given)
    assert len(chunks) > 2
    cache(
        encoder, given, layers, score, owned=[], seed=lambda chunk: chunk, backward=torch.Tensor.backward
    ).backward()
    found, parts = gradients(), []
    for number, rows in enumerate(chunks):
        torch.manual_seed(number)
        parts.append(encoder(given.rows(rows), layers).values)
    score(Embeddings(torch.cat(parts, dim=1), layers)).backward()
    for mine, theirs in zip(found, gradients(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-10)
