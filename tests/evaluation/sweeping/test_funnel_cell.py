import pytest
import torch
from tasks import local_tasks, swept

from embedtrain.evaluation.comparing.runs import cells_of, read_run
from embedtrain.evaluation.per_item.stored import read_items
from embedtrain.evaluation.sweeping.funnel import Funnel, measured_as
from embedtrain.files.scores import read_scores
from embedtrain.reporting.cells import cells
from embedtrain.reporting.funnels import funnel_table
from embedtrain.types import Cell, InputError, SubModel

SMALL, LARGE = SubModel(1, 4), SubModel(3, 16)
FUNNEL = Funnel((SMALL, LARGE), (12,))
EVERYTHING = Funnel((SMALL, SubModel(2, 8), LARGE), (40, 40))  # keeps all 40 documents at every stage
SINGLE = (Cell(*SMALL), Cell(*LARGE))


def values(scores, measured):
    where = (measured.layer, measured.dim, str(measured.dtype))
    return {s.metric: s.value for s in scores if (s.layer, s.dim, s.dtype) == where}


def test_a_funnel_that_keeps_everything_scores_as_its_last_cell(make_encoder, data_root, tmp_path):
    scores = swept(make_encoder(), data_root, [*SINGLE, EVERYTHING], tmp_path, names=["find"])
    single, funnel = values(scores, SINGLE[1]), values(scores, EVERYTHING)
    assert {metric: funnel[metric] for metric in single} == single


def test_a_funnel_finds_what_a_slow_one_finds(make_encoder, data_root, tmp_path):
    encoder = make_encoder()
    scores = swept(encoder, data_root, [FUNNEL], tmp_path, names=["find"])
    (task,) = local_tasks(data_root, ["find"])
    task.load_data()
    data = task.dataset["default"]["test"]
    documents = [f"{row['title']} {row['text']}".strip() for row in data["corpus"]]
    hits = []
    for query in data["queries"]:
        order = range(len(documents))
        for sub, keep in ((SMALL, 12), (LARGE, 10)):
            picked = list(order)
            query_vector = encoder.encode([query["text"]], [sub.layer], "query").at(sub)[0]
            docs = encoder.encode([documents[number] for number in picked], [sub.layer]).at(sub)
            order = [
                picked[place] for place in (docs @ query_vector).argsort(descending=True)[:keep].tolist()
            ]
        relevant = {key for key, score in data["relevant_docs"][query["id"]].items() if score > 0}
        found = {data["corpus"]["id"][number] for number in order}
        hits.append(len(relevant & found) / len(relevant))
    assert values(scores, FUNNEL)["recall_at_10"] == pytest.approx(torch.tensor(hits).mean().item(), abs=1e-5)


def test_its_lines_say_what_it_is_and_what_it_costs(make_encoder, data_root, tmp_path):
    scores = swept(make_encoder(), data_root, [*SINGLE, FUNNEL], tmp_path, names=("mine", "find"))
    lines = [score for score in scores if score.dtype == "funnel(L1_D4>12>L3_D16)"]
    assert {(s.task, s.layer, s.dim) for s in lines} == {("find", 3, 16)}  # of retrieval alone
    assert lines[0].metric == "ndcg_at_10"
    found = values(scores, FUNNEL)
    assert found["search_multiply_adds"] == 40 * 4 + 12 * 16
    assert found["search_share"] == pytest.approx((40 * 4 + 12 * 16) / (40 * 16))
    assert "search_share" not in values(scores, SINGLE[1])
    assert read_scores(tmp_path / "scores.jsonl") == scores
    folders = {path.parent.name for path in (tmp_path / "mteb").rglob("find.json")}
    assert "funnel_L1_D4-12-L3_D16" in folders


def test_all_stages_are_served_by_one_encode(make_encoder, data_root, tmp_path):
    encoder, single = make_encoder(), make_encoder()
    swept(encoder, data_root, [*SINGLE, FUNNEL, EVERYTHING], tmp_path / "a", names=["find"])
    swept(single, data_root, SINGLE[:1], tmp_path / "b", names=["find"])
    assert encoder.texts == single.texts


def test_a_funnel_is_resumed_kept_and_compared_like_a_cell(make_encoder, data_root, tmp_path):
    first = swept(make_encoder(), data_root, [*SINGLE, FUNNEL], tmp_path, names=["find"])
    again = make_encoder()
    assert swept(again, data_root, [*SINGLE, FUNNEL], tmp_path, names=["find"]) == first
    assert again.calls == 0
    assert swept(again, data_root, SINGLE, tmp_path, names=["find"]) == [
        s for s in first if s.dtype == "float32"
    ]
    kept = read_scores(tmp_path / "scores.jsonl")
    assert sorted(kept) == sorted(first)  # a funnel that is not swept now stays
    (path,) = tmp_path.glob("items/find/*funnel*.npz")
    items = read_items(path)
    assert items.sample().score() == pytest.approx(values(first, FUNNEL)["ndcg_at_10"], abs=5.5e-6)
    run = read_run(str(tmp_path))
    assert set(cells_of([[3, 16, str(FUNNEL)]])) <= run.cells


def test_grids_do_not_show_funnels_and_their_table_does(make_encoder, data_root, tmp_path):
    scores = swept(make_encoder(), data_root, [*SINGLE, FUNNEL], tmp_path, names=("mine", "find"))
    assert set(cells(scores)) == set(SINGLE)
    table = funnel_table(scores)
    assert [str(name) for name in table.columns[1].cells] == ["L1_D4", "L3_D16", str(FUNNEL)]
    assert [str(cost) for cost in table.columns[3].cells] == ["160", "640", "352"]
    assert [str(share) for share in table.columns[4].cells] == ["25.0%", "100.0%", "55.0%"]
    assert funnel_table([score for score in scores if score.dtype == "float32"]) is None


def test_stages_the_model_does_not_have_are_refused(make_encoder, data_root, tmp_path):
    with pytest.raises(InputError, match=r"layer must be in 1..3, got 7"):
        swept(make_encoder(), data_root, [Funnel((SubModel(7, 4), LARGE), (12,))], tmp_path, names=["find"])


def test_a_dtype_names_what_was_measured():
    assert measured_as(3, 16, "int8") == Cell(3, 16, "int8")
    assert measured_as(3, 16, str(FUNNEL)) == FUNNEL
    assert measured_as(3, 16, "int3") is None
