"""How datasets share a run, and what `data.train` may say of each."""

import json
import logging
from collections import Counter
from fractions import Fraction

import pytest
from data_modules import data_module, one_token
from small_runs import write_rows

from embedtrain.content_ids import content_id
from embedtrain.data.entries import datasets_of, entries_of
from embedtrain.data.order import windows as windows_module
from embedtrain.data.order.mixture import Mix, apportion
from embedtrain.data.read.sources import Example
from embedtrain.training.steps.contrastive.collate import PairCollate
from embedtrain.types import InputError


@pytest.fixture
def files(tmp_path):
    """a: 80 rows, b: 40 rows with five negatives, c: 10 scored rows."""

    def write(name, rows):
        path = tmp_path / f"{name}.jsonl"
        write_rows(path, rows)
        return str(path)

    five = [f"n{i}" for i in range(5)]
    return {
        "a": write("a", [{"query": f"qa{i}", "positive": f"pa{i}"} for i in range(80)]),
        "b": write("b", [{"query": f"qb{i}", "positive": f"pb{i}", "negatives": five} for i in range(40)]),
        "c": write("c", [{"sentence1": f"s{i}", "sentence2": f"t{i}", "score": i} for i in range(10)]),
    }  # fmt: skip


def module_of(train, world=None, **options):
    settings = {"batch_size": 8, "seed": 0, "collate": PairCollate(one_token), **options}
    data = data_module(train=train, **settings)
    if world is not None:
        data._place = lambda: world
    data.setup()
    return data


def entry(files, name, **settings):
    return {"source": files[name], "task": name, **settings}


def everything(data):
    return list(data.train_dataloader())


def tasks_of(data):
    """Task of each step, all of whose queries have it."""
    names = {content_id(name): name for name in data.tasks}
    steps = [batch.links.task.unique().tolist() for batch in everything(data)]
    assert all(len(step) == 1 for step in steps)
    return [names[step[0]] for step in steps]


def test_apportioning_rounds_the_largest_remainders_up():
    assert apportion(10, [Fraction(1), Fraction(1), Fraction(1)]) == [4, 3, 3]
    assert apportion(7, [Fraction(5), Fraction(2)]) == [5, 2]
    assert apportion(100, [Fraction(0.3), Fraction(0.1), Fraction(0)]) == [75, 25, 0]
    assert sum(apportion(999, [Fraction(n) ** 1 for n in (3, 1, 4, 1, 5, 9, 2, 6)])) == 999
    with pytest.raises(InputError, match="all datasets have the weight 0"):
        apportion(7, [Fraction(0)])


def test_by_default_every_dataset_has_its_epochs(files):
    data = module_of([entry(files, "a"), entry(files, "b", epochs=3), entry(files, "c", batch_size=2)])
    assert Counter(tasks_of(data)) == {"a": 10, "b": 15, "c": 5}
    assert data.total_steps == 30
    assert data.batches_per_epoch == 20
    rows = Counter(row for batch in everything(data) for row in batch.links.rows.tolist())
    assert rows == {row: 3 if 80 <= row < 120 else 1 for row in range(130)}
    places = data.examples_at([0, 79, 80, 119, 120, 129])
    assert [example.task for example in places] == ["a", "a", "b", "b", "c", "c"]
    assert places[3].where == f"{files['b']}:40"


def test_max_steps_scales_the_epochs_and_goes_on_beyond_them(files):
    both = [entry(files, "a"), entry(files, "b")]
    assert Counter(tasks_of(module_of(both, max_steps=6))) == {"a": 4, "b": 2}
    long = module_of(both, max_steps=45)
    assert Counter(tasks_of(long)) == {"a": 30, "b": 15}
    rows = Counter(row for batch in everything(long) for row in batch.links.rows.tolist())
    assert set(rows.values()) == {3}


def test_weights_and_temperature_decide_the_steps(files):
    weighted = [entry(files, "a", weight=1), entry(files, "b", weight=3)]
    data = module_of(weighted, sampling="weights", max_steps=40)
    assert Counter(tasks_of(data)) == {"a": 10, "b": 30}
    both = [entry(files, "a"), entry(files, "b")]
    for alpha, expected in ((0, (30, 30)), (1, (40, 20)), (0.5, (35, 25))):
        data = module_of(both, sampling="temperature", alpha=alpha, max_steps=60)
        assert Counter(tasks_of(data)) == dict(zip("ab", expected, strict=True))
    assert module_of(both, sampling="temperature", max_epochs=2).total_steps == 30


def test_mixed_batches_are_drawn_from_all_datasets(files):
    both = [entry(files, "a"), entry(files, "b")]
    data = module_of(both, batches="mixed", max_epochs=2, batch_size=12)
    assert data.total_steps == 20
    assert data.batches_per_epoch == 10
    steps = everything(data)
    assert all(len(batch.links.rows) == 12 for batch in steps)
    assert sum(len(batch.links.task.unique()) == 2 for batch in steps) >= 18
    rows = Counter(row for batch in steps for row in batch.links.rows.tolist())
    assert rows == dict.fromkeys(range(120), 2)
    weighted = [entry(files, "a", weight=1), entry(files, "b", weight=1)]
    data = module_of(weighted, batches="mixed", sampling="weights", max_steps=20)
    tasks = Counter(task for batch in everything(data) for task in batch.links.task.tolist())
    assert set(tasks.values()) == {80}


def test_a_cap_uses_the_same_rows_in_every_epoch(files):
    data = module_of([entry(files, "a", cap=16)], max_epochs=5)
    assert data.total_steps == 10
    places = {
        example.where for batch in everything(data) for example in data.examples_at(batch.links.rows.tolist())
    }
    assert len(places) == 16
    other = module_of([entry(files, "a", cap=16)], seed=1)
    assert places != {e.where for b in everything(other) for e in other.examples_at(b.links.rows.tolist())}


def test_every_dataset_draws_negatives_its_own_way(files):
    train = [
        entry(files, "a"),
        entry(files, "b", negatives=2, draw_negatives="first"),
        {**entry(files, "b"), "task": "rest", "draw_negatives": "all"},
    ]
    data = module_of(train, max_negatives=1, max_epochs=2)
    for batch, task in zip(everything(data), tasks_of(data), strict=True):
        each = len(batch.links.docs) // len(batch.links.rows)
        assert each == {"a": 1, "b": 3, "rest": 6}[task]
        if task == "b":
            texts = set(batch.links.content_ids[batch.links.docs].tolist())
            assert {content_id("n0"), content_id("n1")} < texts
            assert not {content_id("n2"), content_id("n3"), content_id("n4")} & texts


def test_rows_that_name_their_task_make_datasets(tmp_path):
    path = tmp_path / "rows.jsonl"
    rows = [{"query": f"q{i}", "positive": f"p{i}", "task": "ab"[i % 2]} for i in range(40)]
    write_rows(path, rows)
    data = module_of([{"source": str(path), "weight": 2}], batch_size=4, sampling="weights", max_steps=10)
    assert Counter(tasks_of(data)) == {"a": 5, "b": 5}


def test_entries_of_one_task_are_one_dataset(files):
    train = [entry(files, "a"), {**entry(files, "b"), "task": "a"}]
    assert module_of(train).tasks == {"a": False}
    train = [entry(files, "a", weight=1), {**entry(files, "b"), "task": "a", "weight": 2}]
    parts = [(item, []) for item in entries_of(train)]
    rows = [Example("q", ("p",), (), None, "a", "f:1")]
    assert datasets_of([(item, rows) for item, _ in parts], 0)[0].use.weight == 3
    train = [entry(files, "a", epochs=1), {**entry(files, "b"), "task": "a", "epochs": 2}]
    with pytest.raises(InputError, match="are the task 'a' and are used differently"):
        module_of(train)


def test_datasets_without_in_batch_negatives_are_named(files):
    data = module_of([entry(files, "a"), entry(files, "b", in_batch=False)])
    assert [task for task, shared in data.in_batch.items() if not shared] == ["b"]
    assert data.in_batch == {"b": False}
    assert module_of([entry(files, "a", in_batch=True)]).in_batch == {"a": True}
    with pytest.raises(InputError, match=r"in_batch=false brings no other row's .* Leave in_batch out"):
        module_of([entry(files, "a", in_batch=False)])
    with pytest.raises(InputError, match="nothing to contrast"):
        module_of([entry(files, "b", in_batch=False, negatives=0)])


FEATURES = {
    "one task": {},
    "mixed": {"batches": "mixed"},
    "by length": {"group_by_length": True},
    "temperature": {"sampling": "temperature", "max_steps": 17},
    "sampled negatives": {"max_negatives": 2, "draw_negatives": "sample"},
    "mixed by length": {"batches": "mixed", "group_by_length": True, "max_negatives": 1},
}


@pytest.mark.parametrize("feature", FEATURES)
def test_ranks_share_the_global_batches_of_one(files, feature, monkeypatch):
    monkeypatch.setattr(windows_module, "WINDOW", 16)
    train = [entry(files, "a"), entry(files, "b", cap=24)]
    whole = [links_of(batch) for batch in everything(module_of(train, **FEATURES[feature]))]
    for world in (2, 4):
        ranks = [everything(module_of(train, (rank, world), **FEATURES[feature])) for rank in range(world)]
        for step, batches in zip(whole, zip(*ranks, strict=True), strict=True):
            parts = [links_of(batch) for batch in batches]
            assert [item for part in parts for item in part] == step
            numbers = [{row for row, *_ in part} for part in parts]
            assert sum(map(len, numbers)) == len(set().union(*numbers)) == 8
            if FEATURES[feature].get("batches") != "mixed":
                assert len({task for part in parts for _, task, _ in part}) == 1


def links_of(batch):
    """(row, task, ids of its documents) of each query."""
    links = batch.links
    ids = links.content_ids[links.docs]
    return [
        (row, task, tuple(ids[links.owner == place].tolist()))
        for place, (row, task) in enumerate(zip(links.rows.tolist(), links.task.tolist(), strict=True))
    ]


def test_revise_puts_other_examples_in_place_and_knows_their_numbers(files):
    asked = []

    def revise(step, numbers, examples):
        asked.append((step, list(numbers), [example.where for example in examples]))
        mined = [(f"mined {number}",) for number in numbers]
        return [example._replace(negatives=new) for example, new in zip(examples, mined, strict=True)]

    data = module_of([entry(files, "a"), entry(files, "b")], revise=revise, max_negatives=1)
    batches = everything(data)
    assert [step for step, *_ in asked] == list(range(15))
    for batch, (_, numbers, places) in zip(batches, asked, strict=True):
        assert batch.links.rows.tolist() == numbers
        assert [example.where for example in data.examples_at(numbers)] == places
        mined = {content_id(f"mined {number}") for number in numbers}
        assert mined < set(batch.links.content_ids.tolist())


def test_workers_make_the_same_batches(files, monkeypatch):
    monkeypatch.setattr(windows_module, "WINDOW", 16)
    train = [entry(files, "a"), entry(files, "b")]
    for options in ({}, {"batches": "mixed"}):
        alone, helped = (module_of(train, num_workers=count, **options) for count in (0, 2))
        assert list(map(links_of, everything(alone))) == list(map(links_of, everything(helped)))


def test_a_validation_split_takes_rows_of_all_datasets(files):
    data = module_of([entry(files, "a"), entry(files, "b")], validation_rows=30)
    held = [example.task for example in data._validation]
    assert len(held) == 30
    assert set(held) == {"a", "b"}
    assert data.total_steps == (80 - held.count("a")) // 8 + (40 - held.count("b")) // 8


def test_shares_are_logged_and_tiny_ones_warned_of(files, caplog):
    with caplog.at_level(logging.INFO, "embedtrain.data"):
        everything(module_of([entry(files, "a"), entry(files, "b")]))
    assert "a: 80 rows, 10 batches of 8, 1.00 epochs" in caplog.text
    weighted = [entry(files, "a", weight=1000), entry(files, "b", weight=1)]
    everything(module_of(weighted, sampling="weights", max_steps=3))
    assert "b trains at no step: its share of the run is too small" in caplog.text
    everything(module_of(weighted, sampling="weights", batches="mixed", max_steps=200))
    assert "b has 0.0 rows in a batch" in caplog.text


@pytest.mark.parametrize(
    ("settings", "options", "message"),
    [
        ({"wieght": 1}, {}, r"a dataset has no setting 'wieght', only .*Did you mean 'weight'"),
        ({"weight": -1}, {}, "weight must be a number, 0 or more, got -1"),
        ({"weight": 1}, {}, "'a' has weight of its own, which data.sampling=proportional does not look at"),
        ({"epochs": 2}, {"sampling": "weights"}, "'a' has epochs of its own, which data.sampling=weights"),
        ({"epochs": 0}, {}, "epochs must be a whole number, 1 or more, got 0"),
        ({"cap": 2.5}, {}, "cap must be a whole number, 1 or more, got 2.5"),
        ({"rows": 5}, {}, "rows is how many of a stream are read: add stream: true, or use cap"),
        ({"source": ["a.jsonl", "b.jsonl"]}, {}, "a list of files needs stream: true and a name, task: NAME"),
        ({"in_batch": "no"}, {}, "in_batch must be true or false, got 'no'"),
        ({"draw_negatives": "last"}, {}, "draw_negatives must be one of all, first, rotate, sample"),
        ({"negatives": 2, "draw_negatives": "all"}, {}, "draw_negatives: all contradicts negatives: 2"),
        ({"batch_size": 4}, {"batches": "mixed"}, "'a' says its batch_size, and data.batches=mixed draws"),
        ({"batch_size": 81}, {}, "batch_size=81 is more than the 80 .* of 'a'. Set data.batch_size to 80"),
        ({}, {"batches": "some"}, "batches must be one of one_task, mixed, got 'some'"),
        ({}, {"sampling": "odd"}, "sampling must be one of proportional, weights, temperature, got"),
        ({}, {"alpha": 2}, "alpha must be in 0..1, got 2"),
        ({}, {"max_negatives": 1, "draw_negatives": "all"}, "data.draw_negatives=all contradicts"),
    ],
)  # fmt: skip
def test_errors_of_settings(files, settings, options, message):
    with pytest.raises(InputError, match=message):
        module_of([entry(files, "a", **settings)], **options)


def test_a_small_dataset_beside_a_large_one_is_told_its_cures(files):
    with pytest.raises(InputError, match=r"10 or less here or in its entry .* or choose data\.batches"):
        module_of([entry(files, "a"), entry(files, "c")], batch_size=16)
    mixed = module_of([entry(files, "a"), entry(files, "b", cap=4)], batch_size=16, batches="mixed")
    assert mixed.total_steps == 5


def test_ranks_must_be_able_to_share_every_batch(files):
    with pytest.raises(InputError, match="batch_size=6 cannot be split evenly over 4 ranks: make it 4 or 8"):
        module_of([entry(files, "a"), entry(files, "b", batch_size=6)], (0, 4))


@pytest.mark.parametrize(
    ("rows", "batch_size", "message"),
    [
        (
            [("q", "p"), ("r", "s")],
            1,
            "nothing to contrast: data.batch_size=1 .* Set data.batch_size to 2",
        ),
        ([("same", f"p{i}") for i in range(9)], 2, "all 9 rows share the text 'same': there is nothing"),
        ([(f"q{i}", "same") for i in range(9)], 2, "all 9 rows share the text 'same': there is nothing"),
    ],
)
def test_nothing_to_contrast(tmp_path, rows, batch_size, message):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"query": q, "positive": p}) + "\n" for q, p in rows))
    with pytest.raises(InputError, match=message):
        module_of(str(path), batch_size=batch_size)


def test_shares_by_size_count_what_an_epoch_has():
    assert Mix("temperature", 0.5).shares([None, None], [100, 25]) == [10, 5]


@pytest.fixture
def shards(tmp_path):
    """Four files of 25 rows."""
    folder = tmp_path / "shards"
    folder.mkdir()
    for shard in range(4):
        rows = [{"query": f"q{shard}-{i}", "positive": f"p{shard}-{i}"} for i in range(25)]
        write_rows(folder / f"part{shard}.jsonl", rows)
    return {"source": str(folder), "task": "streamed", "stream": True}


def test_streams_train_beside_rows_in_memory(files, shards, tmp_path, monkeypatch):
    monkeypatch.setattr(windows_module, "WINDOW", 32)
    train = [entry(files, "a"), shards]
    for options in ({}, {"batches": "mixed"}, {"num_workers": 2}):
        data = module_of(train, cache=tmp_path / "cache", max_epochs=2, **options)
        assert data.tasks == {"a": False, "streamed": False}
        rows = Counter(row for batch in everything(data) for row in batch.links.rows.tolist())
        streamed = Counter({row: times for row, times in rows.items() if row >= 80})
        assert set(streamed) <= set(range(80, 180))
        assert sum(streamed.values()) == (192 if options.get("batches") != "mixed" else 200)
        assert max(streamed.values()) == 2
        places = {example.where.rpartition("/")[2] for example in data.examples_at(sorted(streamed))}
        assert len(places) == len(streamed)


def test_a_capped_stream_uses_as_many_rows(shards, tmp_path):
    data = module_of([{**shards, "cap": 40}], cache=tmp_path / "cache", max_epochs=3)
    rows = Counter(row for batch in everything(data) for row in batch.links.rows.tolist())
    assert rows == dict.fromkeys(range(40), 3)
    assert len({example.where for example in data.examples_at(range(40))}) == 40


def test_bad_rows_of_a_stream_leave_no_holes(shards, tmp_path):
    broken = tmp_path / "shards" / "part1.jsonl"
    lines = broken.read_text().splitlines()
    broken.write_text("\n".join(["{", *lines[1:24], '{"query": "alone"}']) + "\n")
    options = {"cache": tmp_path / "cache", "folder": tmp_path / "run", "on_bad_row": "skip"}
    data = module_of([shards], **options)
    batches = everything(data)
    assert [len(batch.links.rows) for batch in batches] == [8] * 12  # of 98 rows
    used = {row for batch in batches for row in batch.links.rows.tolist()}
    report = (tmp_path / "run/bad_rows/bad_rows.jsonl").read_text().splitlines()
    assert {json.loads(line)["where"] for line in report} == {f"{broken}:1", f"{broken}:25"}
    assert len(used) == 96
    places = {example.where for example in data.examples_at(range(98))}
    assert len(places - {f"{broken}:1", f"{broken}:25"}) == 98


def test_streams_need_validation_rows_of_their_own_and_a_place_for_rows(files, shards, tmp_path):
    with pytest.raises(InputError, match=r"is streamed, so no validation rows .* give data\.validation"):
        module_of([entry(files, "a"), shards], cache=tmp_path / "cache", validation_rows=9)
    assert module_of(shards, cache=tmp_path / "cache", validation=files["a"]).has_validation
    with pytest.raises(InputError, match=r"a stream needs data\.cache"):
        module_of(shards)
    twice = [shards, {**shards, "source": files["b"]}]
    with pytest.raises(InputError, match="two streams are the task 'streamed'"):
        module_of(twice, cache=tmp_path / "cache")
