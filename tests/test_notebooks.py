"""Every notebook runs from top to bottom on a tiny backbone, and none carries outputs in the repository."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from processes import LIMIT

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


SHOWN = {  # notebook -> a pattern of what it shows at its end, and with which tiny backbone
    "choosing_a_cut": (r"Model\('written/cut', \d layers x \d+ dims\)", "tiny_bert"),
    "which_plan": (r"layer 4, dim 32 +[\d.]+ +[\d.]+ +[\d.]+ +[\d.]+", "tiny_bert"),
    "pooling_on_a_decoder": (r"'pooling': 'mean', 'attention': 'bidirectional'", "tiny_llama"),
    "false_negatives": (r"guide +\d+\.\d", "tiny_bert"),
    "mining": (r"(better|worse|not distinguishable) · [-+]\d", "tiny_bert"),
    "reading_a_sweep": (r"report\.html \d", "tiny_bert"),
}


def read(path):
    return nbformat.read(path, as_version=4)


def run(path, home, **parameters):
    """The executed notebook, its parameter cell replaced by `parameters`."""
    notebook = read(path)
    first = notebook.cells[0]
    assert first.metadata.get("tags") == ["parameters"], "the first cell holds the parameters"
    first.source = "\n".join(f"{name} = {value!r}" for name, value in parameters.items())
    client = NotebookClient(notebook, timeout=LIMIT, resources={"metadata": {"path": str(home)}})
    client.execute()
    return notebook


def printed(notebook):
    """All that the cells wrote or gave as text."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "\n".join(
        output["text"] if output.output_type == "stream" else output.get("data", {}).get("text/plain", "")
        for output in outputs
    )


def test_there_are_notebooks():
    assert {path.stem for path in NOTEBOOKS} == {"first_training", *SHOWN}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_stripped(path):
    for number, cell in enumerate(read(path).cells):
        assert not cell.get("outputs"), f"cell {number} has outputs: run nbstripout {path}"
        assert cell.get("execution_count") is None, f"cell {number} has a count: run nbstripout {path}"


def test_first_training_ends_with_a_cut_that_sentence_transformers_loads(tiny_bert, tmp_path):
    notebook = run(
        FOLDER / "first_training.ipynb", tmp_path, backbone=str(tiny_bert), steps=4, folder="written"
    )
    run_folder, cut = tmp_path / "written" / "runs" / "help", tmp_path / "written" / "help_cut"
    assert {"model", "scores.jsonl", "heat_map.png"} <= {path.name for path in run_folder.iterdir()}
    assert (cut / "model.safetensors").is_file()
    text = printed(notebook)
    assert "● trained: " in text, "the caption of the table"
    assert "(12, " in text, "the shape of the twelve pages' embeddings"


@pytest.mark.slow
@pytest.mark.parametrize("name", SHOWN)
def test_a_notebook_runs_to_its_end(name, request, tmp_path):
    if name == "reading_a_sweep":
        pytest.importorskip("plotly", reason="the extra `report` is not installed")
    shown, backbone = SHOWN[name]
    path = str(request.getfixturevalue(backbone))
    data = str(FOLDER / "help_pages.jsonl")
    notebook = run(FOLDER / f"{name}.ipynb", tmp_path, backbone=path, steps=3, data=data, folder="written")
    assert re.search(shown, printed(notebook)), printed(notebook)[-2000:]
    assert not [path.name for path in tmp_path.iterdir() if path.name != "written"]
