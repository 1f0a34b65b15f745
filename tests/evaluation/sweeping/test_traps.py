"""Where mteb gives a wrong number without a word, and this program the right one. MTEB 2.26, offline."""

import mteb
import pytest
import torch
from mteb.models.abs_encoder import AbsEncoder
from mteb.models.model_meta import ModelMeta, ScoringFunction
from tasks import local_tasks, mteb_scores, swept

from embedtrain.evaluation import mteb_private
from embedtrain.files.scores import main_scores
from embedtrain.reporting.cells import cells as table_cells
from embedtrain.types import Cell

FULL = Cell(3, 16)


class Stock(AbsEncoder):
    """What one would write for mteb: a name, a revision, an `encode`."""

    def __init__(self, encoder, dim=16, kwargs=None):
        self.encoder, self.dim = encoder, dim
        facts = {"name": "mine/model", "revision": "1", "similarity_fn_name": ScoringFunction.COSINE}
        self.mteb_model_meta = ModelMeta.create_empty({**facts, "experiment_kwargs": kwargs})

    def encode(self, inputs, **_):
        return self.encoder.encode(list(inputs.dataset["text"][:]), [3]).values[0, :, : self.dim].numpy()


def stock(model, task, cache):
    return round(mteb_scores(model, task, cache)["main_score"], 6)  # as mteb writes it


def ours(encoder, root, folder, cell=FULL, revision="w"):
    return main_scores(swept(encoder, root, [cell], folder, names=["mine"], revision=revision))[0].value


@pytest.fixture
def task(data_root):
    return local_tasks(data_root, ["mine"])[0]


@pytest.fixture
def cache(tmp_path):
    return mteb.ResultCache(tmp_path / "stock")


def test_changed_weights_under_one_name(make_encoder, data_root, tmp_path, task, cache):
    old, new = make_encoder(seed=0), make_encoder(seed=1)
    truth = stock(Stock(new), task, None)
    assert stock(Stock(old), task, cache) == stock(Stock(new), task, cache) != truth
    ours(old, data_root, tmp_path, revision="w0")
    assert ours(new, data_root, tmp_path, revision="w1") == pytest.approx(truth, abs=1e-6)


def test_a_dim_that_is_not_among_the_settings(make_encoder, data_root, tmp_path, task, cache):
    encoder = make_encoder()
    truth = stock(Stock(encoder, 4), task, None)
    assert stock(Stock(encoder), task, cache) == stock(Stock(encoder, 4), task, cache) != truth
    ours(encoder, data_root, tmp_path)
    assert ours(encoder, data_root, tmp_path, Cell(3, 4)) == pytest.approx(truth, abs=1e-6)


def test_changed_data_under_one_name(make_encoder, data_root, tmp_path, task, cache, write):
    encoder = make_encoder()
    before = stock(Stock(encoder), task, cache)
    assert ours(encoder, data_root, tmp_path) == pytest.approx(before, abs=1e-6)
    words = ["red cat", "blue dog", "small house", "old river", "bird eats", "stone"]
    rows = [{"sentence1": a, "sentence2": b, "score": len(a) - len(b)} for a in words for b in words]
    write(data_root / "sts/mine/test.jsonl", rows)
    (changed,) = local_tasks(data_root, ["mine"])
    assert changed.metadata.revision != task.metadata.revision
    truth = stock(Stock(encoder), changed, None)
    assert stock(Stock(encoder), changed, cache) == pytest.approx(before, abs=1e-6) != truth
    assert ours(encoder, data_root, tmp_path) == pytest.approx(truth, abs=1e-6)


def test_a_model_without_a_name(make_encoder, data_root, tmp_path, task, cache):
    class Nameless:
        def __init__(self, encoder):
            self.inner, self.calls = Stock(encoder), 0

        def encode(self, *inputs, **settings):
            self.calls += 1
            return self.inner.encode(*inputs, **settings)

    empty = Stock(make_encoder(seed=0))
    empty.mteb_model_meta = ModelMeta.create_empty()
    first, second = stock(empty, task, cache), Nameless(make_encoder(seed=1))
    assert stock(second, task, cache) == pytest.approx(first, abs=1e-6)
    assert second.calls == 0
    truth = stock(Stock(make_encoder(seed=1)), task, None)
    assert ours(make_encoder(seed=1), data_root, tmp_path) == pytest.approx(truth, abs=1e-6) != first
    tree = tmp_path / "mteb/results"
    assert [path.name for path in tree.iterdir()] == ["embedtrain__mine"]


def test_a_table_that_averages_the_cells(make_encoder, data_root, tmp_path, task, cache):
    encoder = make_encoder()
    full = stock(Stock(encoder), task, cache)
    small = stock(Stock(encoder, 4, {"embed_dim": 4}), task, cache)
    results = cache.load_results(
        models=["mine/model"], tasks=["mine"], include_remote=False, load_experiments="match_name"
    )
    (number,) = results.to_dataframe()["mine/model"]
    assert number == pytest.approx((full + small) / 2, abs=1e-5)
    assert number not in (pytest.approx(full, abs=1e-4), pytest.approx(small, abs=1e-4))
    cells = [FULL, Cell(3, 4)]
    scores = swept(encoder, data_root, cells, tmp_path, names=["mine"])
    assert table_cells(scores) == pytest.approx({FULL: 100 * full, Cell(3, 4): 100 * small}, abs=1e-3)


@pytest.fixture
def clustering(make_clustering):
    words = "red green blue cat dog bird house river stone".split()
    rows = [(f"{words[n % 9]} {words[(n * n) % 7]} {n % 11}", n % 9) for n in range(180)]
    drawn = {"max_document_to_embed": 40, "max_documents_per_cluster": 15, "n_clusters": 5}
    return lambda: make_clustering(rows, **drawn)


def test_clustering_that_draws_other_samples_each_time(make_encoder, clustering, tmp_path):
    task, encoder = clustering(), make_encoder()
    drawn = [stock(Stock(encoder), task, None) for _ in range(3)]
    assert len(set(drawn)) > 1
    task = clustering()
    cells = [FULL, Cell(3, 16, "int8"), Cell(3, 8)]
    scores = swept(encoder, [task], cells, tmp_path / "a")
    again = swept(encoder, [task], cells[::-1], tmp_path / "b")
    assert sorted(scores) == sorted(again)
    fresh = clustering()
    mteb_private.seed(fresh)

    class Unit(Stock):
        def encode(self, inputs, **settings):
            return torch.nn.functional.normalize(torch.as_tensor(super().encode(inputs)), dim=1).numpy()

    assert main_scores(scores)[0].value == pytest.approx(stock(Unit(encoder), fresh, None), abs=1e-6)


def test_results_that_hide_the_experiments(make_encoder, data_root, tmp_path):
    cells = [FULL, Cell(3, 4), Cell(1, 4, "int8")]
    swept(make_encoder(), data_root, cells, tmp_path, names=["mine"])
    tree = mteb.ResultCache(tmp_path / "mteb")
    asked = {"models": ["embedtrain/mine"], "tasks": ["mine"], "include_remote": False}
    assert len(tree.load_results(**asked).model_results) == 1
    all_of_them = tree.load_results(**asked, load_experiments="match_name").model_results
    kwargs = [result.model_meta.experiment_kwargs for result in all_of_them]
    small = [{"embed_dim": 4, "n_layers": layers, "normalize": "post"} for layers in (3, 1)]
    assert sorted(map(str, kwargs)) == sorted(
        map(str, [None, small[0], small[1] | {"output_dtypes": "int8"}])
    )


def test_a_cache_that_is_everybodys(make_encoder, data_root, tmp_path, task, monkeypatch):
    home = mteb.ResultCache(tmp_path / "home")
    monkeypatch.setattr(mteb.evaluate.__globals__["_DEFAULT_CACHE"], "cache_path", home.cache_path)
    model = Stock(make_encoder())
    mteb.evaluate(model, task, co2_tracker=False, show_progress_bar=False)
    assert list((tmp_path / "home").rglob("mine.json"))
    before = set((tmp_path / "home").rglob("*"))
    ours(make_encoder(), data_root, tmp_path / "run")
    assert set((tmp_path / "home").rglob("*")) == before
    assert list((tmp_path / "run/mteb").rglob("mine.json"))
