import sys

import pytest

from embedtrain.reporting.figures import heat_map, save_heat_map
from embedtrain.types import InputError, Score, SubModel


def rows(shift):
    return [
        Score("run", 0, "mine", "test", layer, dim, "accuracy", 0.1 * layer + dim / 1000 + shift)
        for layer in (1, 2, 3)
        for dim in (8, 16)
    ]


def panels(figure):
    return [axis for axis in figure.axes if axis.images and axis.texts]


def test_two_panels_share_one_colour_scale_and_show_every_value():
    figure = heat_map(rows(0), rows(0.5), trained=[SubModel(1, 8), SubModel(3, 16), SubModel(9, 9)])
    before, after = panels(figure)
    assert before.images[0].norm is after.images[0].norm
    assert before.images[0].norm.vmin == pytest.approx(10.8)
    assert after.images[0].norm.vmax == pytest.approx(81.6)
    assert [axis.get_title() for axis in (before, after)] == ["before", "after"]
    written = sorted(text.get_text() for text in before.texts)
    assert written == ["10.8", "11.6", "20.8", "21.6", "30.8", "31.6"]
    assert len(before.patches) == len(after.patches) == 2
    assert before.get_ylabel() == "layer (blocks run)"
    assert before.get_xlabel() == "dim"


def test_higher_layers_stand_higher_and_larger_dims_further_right():
    (panel,) = panels(heat_map(rows(0)))
    place = {text.get_text(): text.get_position() for text in panel.texts}
    assert place["10.8"] == (0, 0)
    assert place["31.6"] == (1, 2)
    assert not panel.yaxis_inverted()


def test_each_dtype_has_a_row_of_panels():
    int8 = [score._replace(dtype="int8", value=score.value - 0.01) for score in rows(0)]
    figure = heat_map(rows(0) + int8, [score._replace(step=1) for score in rows(0.5) + int8])
    titles = [axis.get_title() for axis in panels(figure)]
    assert titles == ["before · float32", "after · float32", "before · int8", "after · int8"]
    assert {text.get_text() for text in panels(figure)[2].texts} >= {"9.8", "30.6"}


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_a_picture_is_written_and_an_empty_before_is_left_out(tmp_path, suffix):
    path = tmp_path / f"map.{suffix}"
    save_heat_map(path, [], rows(0), title="Mine")
    assert path.stat().st_size > 5000
    assert heat_map([], rows(0), title="Mine").get_suptitle() == "Mine"


def test_one_equal_value_everywhere_can_be_drawn(tmp_path):
    save_heat_map(tmp_path / "map.png", rows(0)[:1])


def test_nothing_to_draw_is_said():
    with pytest.raises(InputError, match="no scores to draw"):
        heat_map([])


def test_pyplot_and_its_global_state_are_not_touched():
    heat_map(rows(0))
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()
