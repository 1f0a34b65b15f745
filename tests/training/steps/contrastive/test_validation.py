import pytest
import torch

from embedtrain.training.steps.contrastive.validation import Collected, join_links, sub_model_scores
from embedtrain.types import Embeddings, Links, SubModel

SUB = SubModel(1, 2)


def links(content_ids, query, docs, positive, scores=None):
    ids = torch.tensor(content_ids)
    docs, positive = torch.tensor(docs), torch.tensor(positive)
    count = torch.arange(len(query))
    return Links(
        content_ids=ids,
        query=torch.tensor(query),
        docs=docs,
        owner=count,
        positive=positive,
        known=ids[docs[positive]],
        known_owner=count,
        task=torch.zeros(len(query), dtype=torch.int64),
        rows=count,
        scores=None if scores is None else torch.tensor(scores),
    )


def embeddings(rows):
    return Embeddings(torch.tensor([rows], dtype=torch.float32), (1,))


def test_a_positive_ranked_second_scores_one_over_log2_of_three():
    texts = embeddings([[1, 0], [0, 1], [0.8, 0.6], [1, 0.1]])
    # query 0 is nearest to text 3, its positive is text 2; query 1's positive is text 3, ranked second
    metric, scores = sub_model_scores(texts, links([10, 11, 12, 13], [0, 1], [2, 3], [0, 1]), [SUB])
    assert metric == "ndcg_at_10"
    assert scores[SUB] == pytest.approx(1 / torch.log2(torch.tensor(3.0)).item())


def test_equal_documents_are_one_candidate():
    texts = embeddings([[1, 0], [0, 1], [1, 0], [1, 0]])
    # both queries have the same positive text 12, twice among the documents
    _, scores = sub_model_scores(texts, links([10, 11, 12, 12], [0, 1], [2, 3], [0, 1]), [SUB])
    assert scores[SUB] == 1.0


def test_scored_pairs_are_ranked_by_cosine():
    texts = embeddings([[1, 0], [1, 0], [1, 0], [1, 0], [0.5, 0.5], [0, 1]])
    metric, scores = sub_model_scores(
        texts, links(list(range(6)), [0, 1, 2], [3, 4, 5], [0, 1, 2], [5.0, 3.0, 1.0]), [SUB]
    )
    assert (metric, scores[SUB]) == ("spearman", pytest.approx(1.0))


def test_batches_join_with_their_indices_moved():
    one = links([10, 11], [0], [1], [0])
    two = links([12, 13, 14], [0], [1], [0])
    joined = join_links([one, two])
    assert joined.query.tolist() == [0, 2]
    assert joined.docs.tolist() == [1, 3]
    assert joined.positive.tolist() == [0, 1]
    assert joined.known_owner.tolist() == [0, 1]
    assert joined.scores is None
    texts, _ = Collected([embeddings([[1, 0]]), embeddings([[0, 1]])], [one, two]).joined()
    assert texts.values.shape == (1, 2, 2)
