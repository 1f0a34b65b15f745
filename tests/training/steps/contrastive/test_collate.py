import hashlib

import pytest
import torch
from data_modules import example as row
from data_modules import one_token

from embedtrain.content_ids import content_id
from embedtrain.data.order.draw import Draw, pick
from embedtrain.data.read.sources import Prompts
from embedtrain.training.steps.contrastive import collate as collating


def collate(examples, rows, process, epoch, *, max_negatives=None, how="rotate", **options):
    draw = Draw(max_negatives, how)
    picks = [pick(examples[row], row, epoch, draw=draw) for row in rows]
    return collating.collate(picks, process, **options)


class Recorder:
    """A tokenizer of one token a text that keeps what it was asked."""

    def __init__(self):
        self.asked, self.prompts = {}, {}

    def __call__(self, texts, role, prompts=None):
        self.asked[role], self.prompts[role] = list(texts), list(prompts)
        return one_token(texts, role)


TASK_T = int.from_bytes(hashlib.blake2b(b"t", digest_size=8).digest(), "big") >> 1

EXAMPLES = [
    row("a", ["x", "y", "z"], ["n", "m"]),
    row("bb", ["x"], ["a", "n"], task="u"),
    row("a", ["w"]),
    row("d", ["v"], [f"n{i}" for i in range(5)]),
]


def batch_of(rows, epoch=0, **options):
    recorder = Recorder()
    batch = collate(EXAMPLES, rows, recorder, epoch, **options)
    return batch, recorder.asked["query"] + recorder.asked["document"], recorder.asked


def test_every_distinct_text_of_a_role_is_tokenised_once():
    batch, texts, asked = batch_of([0, 1, 2])
    assert asked == {"query": ["a", "bb"], "document": ["x", "n", "m", "a", "w"]}
    assert batch.inputs.values.flatten().tolist() == [len(text) for text in texts]


@pytest.mark.parametrize("epoch", [0, 1, 2, 5])
def test_links_lead_back_to_the_rows(epoch):
    rows = [3, 0, 1, 2]
    batch, texts, _ = batch_of(rows, epoch)
    links = batch.links
    assert links.rows.tolist() == rows
    assert links.content_ids.tolist() == [content_id(text) for text in texts]
    assert [texts[i] for i in links.query] == [EXAMPLES[r].query for r in rows]
    for place, r in enumerate(rows):
        own = [texts[i] for i in links.docs[links.owner == place]]
        assert own[0] in EXAMPLES[r].positives
        assert own[1:] == list(EXAMPLES[r].negatives)
        assert texts[links.docs[links.positive[place]]] == own[0]
        known = links.known[links.known_owner == place].tolist()
        assert known == [content_id(text) for text in EXAMPLES[r].positives]
    assert links.scores is None


def test_text_ids_ignore_the_role():
    batch, texts, _ = batch_of([0, 1])
    query, document = texts.index("a"), len(texts) - 1 - texts[::-1].index("a")
    assert query != document
    assert batch.links.content_ids[query] == batch.links.content_ids[document]


def test_a_text_behind_another_prompt_is_another_row_with_the_same_id():
    examples = [
        row("a", ["x"])._replace(prompts=Prompts("find: ")),
        row("a", ["x"])._replace(prompts=Prompts("", "find: ")),
        row("a", ["x"], ["a"]),
        row("b", ["x"])._replace(prompts=Prompts("find: ")),
        row("a", ["y"])._replace(prompts=Prompts("find: ")),
    ]
    recorder = Recorder()
    links = collate(examples, range(5), recorder, 0).links
    assert recorder.asked == {"query": ["a", "a", "a", "b"], "document": ["x", "x", "a", "y"]}
    assert recorder.prompts == {
        "query": ["find: ", "", None, "find: "],
        "document": [None, "find: ", None, None],
    }
    assert links.query.tolist() == [0, 1, 2, 3, 0]
    assert links.docs.tolist() == [4, 5, 4, 6, 4, 7]
    assert links.content_ids.tolist() == [content_id(text) for text in "aaabxxay"]


def test_a_guide_reads_the_same_texts_without_the_prompts_of_the_data():
    examples = [row("a", ["x"])._replace(prompts=Prompts("find: ", "text: ")), row("b", ["xyz"], ["a"])]
    recorder, guide = Recorder(), Recorder()
    batch = collate(examples, range(2), recorder, 0, guide_process=guide)
    assert guide.asked == recorder.asked == {"query": ["a", "b"], "document": ["x", "xyz", "a"]}
    assert guide.prompts == {"query": [None] * 2, "document": [None] * 3}
    assert recorder.prompts["query"] == ["find: ", None]
    assert batch.guide.values.flatten().tolist() == [1, 1, 1, 3, 1]
    assert collate(examples, range(2), Recorder(), 0).guide is None


def test_task_ids_tell_tasks_apart_and_never_change():
    task = batch_of([0, 1, 2])[0].links.task.tolist()
    assert task[0] == task[2] != task[1]
    assert task[0] == TASK_T
    assert 0 <= content_id("é") < 2**63


def test_positives_rotate_over_the_epochs():
    seen = []
    for epoch in range(3):
        batch, texts, _ = batch_of([0], epoch)
        seen.append(texts[batch.links.docs[batch.links.positive[0]]])
    assert sorted(seen) == ["x", "y", "z"]


def test_limited_negatives_rotate_until_all_were_used():
    seen = set()
    for epoch in range(5):
        batch, texts, _ = batch_of([3], epoch, max_negatives=2)
        negatives = [texts[i] for i in batch.links.docs[1:]]
        assert len(set(negatives)) == 2
        seen |= set(negatives)
    assert seen == set(EXAMPLES[3].negatives)
    assert len(batch_of([3], max_negatives=0)[0].links.docs) == 1


def test_scores_are_kept_as_float32():
    examples = [row("a", ["b"], score=0.5), row("c", ["d"], score=2)]
    scores = collate(examples, [1, 0], Recorder(), 0).links.scores
    assert scores.dtype == torch.float32
    assert scores.tolist() == [2.0, 0.5]


def test_teacher_scores_follow_their_documents_as_negatives_rotate():
    told = EXAMPLES[3]._replace(teacher=(9.0, 0.0, 1.0, 2.0, 3.0, 4.0))
    for epoch in range(5):
        links = collate([told, EXAMPLES[1]], [0, 1], Recorder(), epoch, max_negatives=2).links
        first = 2 * epoch % 5
        assert links.teacher[:3].tolist() == [9.0, float(first), float((first + 1) % 5)]
        assert links.teacher[3:].isnan().all()
    assert collate(EXAMPLES, [0], Recorder(), 0).links.teacher is None


def test_rows_without_a_score_beside_scored_ones_are_unknown():
    links = collate([row("a", ["b"], score=2.0), row("c", ["d"], task="u")], [0, 1], Recorder(), 0).links
    assert links.scores[0] == 2.0
    assert links.scores[1].isnan()
