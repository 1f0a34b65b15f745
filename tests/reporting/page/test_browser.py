"""The page in a real browser: nothing fails, nothing is fetched, and what it shows is what the files hold."""

import csv
import io
import json
import re
import shutil
from statistics import fmean

import pytest
from report_runs import TRAINED, write_report_run

import embedtrain
from embedtrain.files.scores import main_scores, read_scores, write_scores
from embedtrain.reporting.verdict.recommend import price
from embedtrain.types import Cell

SECTIONS = (
    "verdict heat cost share types funnels scores curves negatives health map tests settings setup".split()
)


@pytest.fixture(scope="module")
def three(page_file, runs):
    return page_file(*runs)


@pytest.fixture(scope="module")
def one(page_file, runs):
    return page_file(runs[0])


def choose(tab, name, value):
    tab.select_option(f"#choose-{name}", label=value)


def heat_numbers(tab, card):
    """(layer, dim) -> the text in a cell of the heat map of that number."""
    return tab.evaluate(
        """card => {
          const plot = document.querySelectorAll("#heat .plot")[card];
          const {xaxis, yaxis, annotations} = plot.layout;
          return annotations.map(({x, y, text}) => [yaxis.ticktext[y], xaxis.ticktext[x], text]);
        }""",
        card,
    )


def mean_scores(folder, step, tasks=None, dtype="float32"):
    found = {}
    for score in main_scores(read_scores(folder / "scores.jsonl")):
        if (score.step, score.dtype) == (step, dtype) and (tasks is None or score.task in tasks):
            found.setdefault(score.cell, []).append(100 * score.value)
    return {cell: fmean(values) for cell, values in found.items()}


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_it_is_whole_at_both_widths_and_in_both_themes(show, three, width, theme):
    shown = show(three, width=width, theme=theme)
    assert shown.all_plots() > 20
    tab = shown.tab
    assert [tab.locator(f"section#{name}").count() for name in SECTIONS] == [1] * len(SECTIONS)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    assert tab.evaluate("document.documentElement.dataset.theme") == theme
    empty = (
        "[...document.querySelectorAll('.plot')].filter((plot) => !plot.querySelector('.main-svg')).length"
    )
    assert tab.evaluate(empty) == 0
    assert "could not be drawn" not in tab.inner_text("main")
    assert (shown.complaints, shown.requests) == ([], [three.resolve().as_uri()])


def test_filters_by_task_type_task_and_dtype_show_the_means_of_the_files(show, one, runs):
    tab = show(one).tab
    for choice, tasks, dtype in (
        ({}, None, "float32"),
        ({"dtype": "int8"}, None, "int8"),
        ({"dtype": "float32", "type": "STS"}, ["STSTask1", "STSTask7"], "float32"),
        ({"task": "STSTask7"}, ["STSTask7"], "float32"),
    ):
        for name, value in choice.items():
            choose(tab, name, value)
        tab.wait_for_selector("#heat .main-svg")
        for card, step in ((0, 0), (1, 200)):
            expected = mean_scores(runs[0], step, tasks, dtype)
            shown = {Cell(int(layer), int(dim), dtype): text for layer, dim, text in heat_numbers(tab, card)}
            assert shown == {cell: f"{value + 1e-9:.1f}" for cell, value in expected.items()}
    assert tab.locator("#heat h3").all_inner_texts() == ["Before", "After", "Difference"]


def test_another_run_is_held_against_it(show, three, runs):
    shown = show(three)
    tab = shown.tab
    choose(tab, "run", "small")
    choose(tab, "other", "best")
    assert tab.locator("#heat h3").all_inner_texts()[-1] == "Against best"
    shown.all_plots()
    mine, theirs = mean_scores(runs[0], 200), mean_scores(runs[1], 200)
    for layer, dim, text in heat_numbers(tab, 3):
        cell = Cell(int(layer), int(dim))
        assert float(text.replace("−", "-").replace("±", "")) == pytest.approx(
            mine[cell] - theirs[cell], abs=0.051
        )


@pytest.mark.parametrize("tolerance", ["0 %", "1 %", "5 %", "10 %", "20 %", "64 B", "384 B"])
def test_the_recommended_cut_is_that_of_a_search_through_all_cells(show, three, runs, tolerance):
    tab = show(three).tab
    tab.select_option("#tolerance", label=tolerance)
    tables = {
        folder.name: [mean_scores(folder, 200, dtype=dtype) for dtype in ("float32", "int8")]
        for folder in runs
    }
    every = {
        (name, cell): value
        for name, parts in tables.items()
        for part in parts
        for cell, value in part.items()
    }
    whole = max(value for (_, cell), value in every.items() if cell == Cell(6, 384))
    if tolerance.endswith("%"):
        least = whole * (1 - float(tolerance[:-2]) / 100) - 1e-9
        enough = [key for key, value in every.items() if value >= least]
        name, cell = min(enough, key=lambda key: (price(key[1]), key[1].layer, -every[key]))
    else:
        enough = [key for key in every if key[1].bytes_per_vector <= int(tolerance[:-2])]
        name, cell = max(enough, key=every.__getitem__)
    dtype = "" if cell.dtype == "float32" else f" · {cell.dtype}"
    said = tab.inner_text(".hero .say").replace("\u00a0", " ")
    assert f"L{cell.layer} · D{cell.dim}{dtype}" in said
    assert f"of {name}" in said
    assert tab.inner_text(".hero .facts div:first-child dd").startswith(f"{every[name, cell]:.1f}")


def test_hovering_says_what_a_cell_is(show, one):
    tab = show(one).tab
    plot = tab.locator("#heat .plot").first
    plot.scroll_into_view_if_needed()
    tab.wait_for_selector("#heat .plot .main-svg")
    box = tab.locator("#heat .plot .nsewdrag").first.bounding_box()
    tab.mouse.move(box["x"] + 0.1 * box["width"], box["y"] + 0.1 * box["height"], steps=3)
    tab.wait_for_selector("#heat .hoverlayer .hovertext")
    text = tab.locator("#heat .hoverlayer .hovertext").first.text_content()
    assert re.search(r"L6 · D32before \d+\.\d → after \d+\.\d128 B a vector", text)


def test_tables_sort_filter_and_show_all(show, one):
    tab = show(one).tab
    column = "#scores tbody td:nth-child(6)"
    numbers = [float(text) for text in tab.locator(column).all_inner_texts()]
    assert numbers == sorted(numbers, reverse=True)
    assert len(numbers) == 25
    tab.locator("#scores .more").click()
    tab.locator("#scores th button").first.click()
    layers = [int(text) for text in tab.locator("#scores tbody td:nth-child(1)").all_inner_texts()]
    assert (layers, len(layers)) == (sorted(layers, reverse=True), 30)
    assert tab.locator("#scores th").first.get_attribute("aria-sort") == "descending"
    tab.locator("#scores th button").first.click()
    assert tab.locator("#scores tbody td:nth-child(1)").first.inner_text() == "2"
    tab.fill("#scores input", "int8 384")
    assert tab.locator("#scores tbody tr").count() == 3
    assert tab.inner_text("#scores .count") == "3 of 30 rows"


def downloaded(tab, selector):
    with tab.expect_download() as found:
        tab.click(selector)
    return found.value.suggested_filename, open(found.value.path(), "rb").read()


def test_tables_and_plots_are_downloaded(show, one, runs):
    tab = show(one).tab
    name, content = downloaded(tab, "#scores button[aria-label$='as CSV']")
    rows = list(csv.DictReader(io.StringIO(content.decode())))
    expected = mean_scores(runs[0], 200)
    assert (name, len(rows)) == ("All_scores.csv", 30)
    for row in rows:
        cell = Cell(int(row["layer"]), int(row["dim"]), row["dtype"])
        assert cell.dtype != "float32" or float(row["mean"]) == pytest.approx(expected[cell], abs=1e-3)
    _, content = downloaded(tab, "#setup button[aria-label='Download Contract as Markdown']")
    assert "| num\\_layers | 6 |\n" in content.decode()
    _, content = downloaded(tab, "#setup button[aria-label='Download Contract as LaTeX']")
    assert "num\\_layers & 6 \\\\\n" in content.decode()
    name, content = downloaded(tab, "#heat button[aria-label='Download After as PNG']")
    assert (name, content[:4]) == ("small_After.png", b"\x89PNG")
    name, content = downloaded(tab, "#curves button[aria-label='Download Learning rate as CSV']")
    lines = [json.loads(line) for line in (runs[0] / "metrics.jsonl").read_text().splitlines()]
    rates = {str(line["step"]): line["train/lr"] for line in lines if "train/lr" in line}
    rows = list(csv.DictReader(io.StringIO(content.decode())))
    assert {row["step"]: pytest.approx(float(row["learning rate"]), rel=1e-4) for row in rows} == rates


def test_every_pair_of_runs_is_judged_in_words_and_numbers(show, three, runs):
    shown = show(three)
    choose(shown.tab, "run", "best")
    shown.all_plots()
    tab = shown.tab
    said = tab.inner_text("#tests .say")
    found = {
        name: embedtrain.compare([folder, runs[1]], cells=[[6, 384]], resamples=200)["rows"]
        for name, folder in (("small", runs[0]), ("third", runs[2]))
    }
    assert said.startswith("best ")
    assert said.endswith("on the mean of 8 tasks.")
    for name, rows in found.items():
        mean = fmean(row["difference"] for row in rows)
        _, content = downloaded(tab, "#tests button[aria-label='Download Pairs of runs by task as CSV']")
        tests = list(csv.DictReader(io.StringIO(content.decode())))
        mine = [row for row in tests if set(row["comparison"].split(" → ")) == {"best", name}]
        assert {row["task"]: row["verdict"] for row in mine if row["comparison"].endswith("best")} == {
            row["task"]: row["verdict"] for row in rows if f"{name} → best" in {m["comparison"] for m in mine}
        }
        _, content = downloaded(tab, "#tests button[aria-label='Download Pairs of runs as CSV']")
        (row,) = [
            row
            for row in csv.DictReader(io.StringIO(content.decode()))
            if set(row["comparison"].split(" → ")) == {"best", name}
        ]
        sign = 1 if row["comparison"].endswith("best") else -1
        assert float(row["difference"]) == pytest.approx(sign * 100 * mean, abs=1e-3)
        word = row["verdict"] if sign == 1 else {"worse": "better"}.get(row["verdict"], row["verdict"])
        joined = {"better": "is better than", "not distinguishable": "is not distinguishable from"}[word]
        assert re.search(rf"{joined}[^;]*\b{name}\b", said)
    choose(tab, "task", "STSTask1")
    assert tab.inner_text("#tests .say").endswith("on STSTask1.")
    assert tab.locator("#tests h3:has-text('Every pair of runs')").count() == 1


def test_funnels_stand_beside_their_cells(show, one):
    tab = show(one).tab
    names = tab.locator("#funnels tbody td:nth-child(2)").all_inner_texts()
    assert names == ["L2_D64", "L6_D384", "funnel(L2_D64>100>L6_D384)"]
    shares = [float(text) for text in tab.locator("#funnels tbody td:nth-child(5)").all_inner_texts()]
    assert shares == [pytest.approx(100 * 64 / 384, abs=0.1), 100, pytest.approx(18.7, abs=0.05)]


def test_the_other_theme_is_a_click_away(show, one):
    tab = show(one).tab
    ground = "getComputedStyle(document.body).backgroundColor"
    before = tab.evaluate(ground)
    tab.click("#theme")
    assert tab.evaluate(ground) != before
    tab.wait_for_selector("#heat .main-svg")
    assert tab.inner_text("#theme") == "Light"


def test_a_query_of_the_map_shows_its_neighbours(show, one):
    shown = show(one)
    shown.all_plots()
    tab = shown.tab
    plot = tab.locator("#map .plot")
    plot.scroll_into_view_if_needed()
    names = tab.evaluate("document.querySelector('#map .plot').data.map(({name}) => name)")
    assert names == ["documents (80)", None, "found (30)", "failed (10)"]
    # the place on the screen of a failed query that no other covers
    x, y = tab.evaluate(
        """() => {
          const plot = document.querySelector("#map .plot");
          const {xaxis, yaxis} = plot._fullLayout, box = plot.getBoundingClientRect();
          const left = box.x + xaxis._offset, top = box.y + yaxis._offset;
          const at = ({x, y}, n) => [left + xaxis.l2p(x[n]), top + yaxis.l2p(y[n])];
          const traces = plot.data.filter(({x}) => x.length);
          const all = traces.flatMap((trace) => trace.x.map((_, n) => at(trace, n)));
          const away = (one, two) => Math.hypot(one[0] - two[0], one[1] - two[1]) || 1e9;
          const far = (one) => Math.min(...all.map((two) => away(one, two)));
          return plot.data[3].x.map((_, n) => at(plot.data[3], n)).sort((a, b) => far(b) - far(a))[0];
        }"""
    )
    tab.mouse.move(x - 3, y)
    tab.mouse.move(x, y, steps=2)
    tab.wait_for_selector("#map .hoverlayer .hovertext")
    text = tab.locator("#map .hoverlayer .hovertext").first.text_content()
    number = int(re.search(r"question (\d+)", text)[1])
    assert "its document is number 25" in text
    assert f"noise {number}" in text
    line = tab.evaluate("document.querySelector('#map .plot').data[1].x.length")
    assert line == 3, "no line to the neighbour"
    assert tab.inner_text("#map .more") == "Show all 10 rows"


HOSTILE = [
    "<img src=x onerror=window.hacked=1>",
    "</script><script>window.hacked=1</script>",
    "<b>bold</b>&amp;%{x}",
    "=cmd()|'a'!A1",
    "a\u202eb\x1b[31m",
]


def test_hostile_names_and_texts_are_text(show, page_file, tmp_path):
    folder = tmp_path / "<script>window.hacked=1<!--"
    write_report_run(folder, names=HOSTILE, config={HOSTILE[0]: HOSTILE[1], "note": HOSTILE[4]})
    shown = show(page_file(folder))
    shown.all_plots()
    tab = shown.tab
    assert tab.evaluate("window.hacked") is None
    assert tab.locator("img, main b:has-text('bold'), #sections script").count() == 0
    assert HOSTILE[2] in tab.locator("#choose-task").inner_text()
    assert "<script>window.hacked=1<!--" in tab.inner_text(".brand")
    tab.check("#settings .sift input[type=checkbox]")
    assert "a\\u202eb\\x1b[31m" in tab.inner_text("#settings")
    ticks = tab.locator("#tests .ytick text").all_text_contents()
    assert HOSTILE[2] in ticks
    _, content = downloaded(tab, "#tests button[aria-label='Download Before and after as CSV']")
    assert "'=cmd()|'a'!A1" in content.decode()
    assert shown.complaints == []


def test_what_is_missing_is_said_and_the_rest_shown(show, page_file, runs, tmp_path):
    empty, foreign, damaged, unfinished = (
        tmp_path / name for name in ("empty", "foreign", "damaged", "unfinished")
    )
    for folder in (empty, foreign):
        folder.mkdir()
    (foreign / "notes.txt").write_text("mine")
    shutil.copytree(runs[0], damaged)
    (damaged / "scores.jsonl").write_text("{broken\n")
    (damaged / "health.jsonl").write_bytes(b"\xff\xfe\n")
    shutil.copytree(runs[0], unfinished)
    for name in ("finished.json", "verdict.json", "weights.json"):
        (unfinished / name).unlink()
    scores = [score for score in read_scores(unfinished / "scores.jsonl") if score.step == 0]
    write_scores(unfinished / "scores.jsonl", scores)
    shutil.rmtree(unfinished / "model")
    shown = show(page_file(empty, foreign, damaged, unfinished))
    tab = shown.tab
    states = tab.locator("#verdict tbody td:nth-child(2)").all_inner_texts()
    assert set(states) == {
        "empty folder",
        "no run wrote this folder",
        "finished",
        "unfinished: step 200 of 200",
    }
    for name, missing, there in (
        ("empty", ["No scores.", "No curves.", "No health"], []),
        ("foreign", ["No scores.", "No curves.", "No contract of empty, foreign, unfinished."], []),
        ("damaged", ["scores.jsonl:1", "health.jsonl", "No scores."], ["Loss by sub-model", "Contract"]),
        (
            "unfinished",
            ["No verdict of the run itself", "not measured yet"],
            ["Learning rate", "Effective rank", "the untouched backbone"],
        ),
    ):
        choose(tab, "run", name)
        text = tab.inner_text("main")
        assert [part for part in [*missing, *there] if part not in text] == [], name
    assert shown.complaints == []


def test_trained_cuts_are_outlined(show, one):
    tab = show(one).tab
    tab.wait_for_selector("#heat .plot .main-svg")
    count = tab.evaluate("document.querySelector('#heat .plot').layout.shapes.length")
    assert count == len(TRAINED)
