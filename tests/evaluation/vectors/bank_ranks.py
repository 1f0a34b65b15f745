"""One of several ranks that share a bank: what it finds, for the test to compare."""

from pathlib import Path

import torch.distributed as dist
from processes import joined, module_at

from embedtrain.evaluation.vectors import streaming
from embedtrain.evaluation.vectors.bank import GridBank
from embedtrain.evaluation.vectors.storage import Keeping
from embedtrain.evaluation.vectors.streaming import Asked, Documents, search_all
from embedtrain.types import Cell, SubModel
from embedtrain.vectors.store import VectorStore

SUB = SubModel(3, 10)
TEXTS = [" ".join(["cat"] * (1 + number % 9) + [str(number)]) for number in range(101)]
FORMS = {
    "memory": {},
    "written": {"folder": "store"},
    "found": {"folder": "store"},
    "disk": {"folder": "other", "memory_gb": 0.0},
    "found_on_disk": {"folder": "other", "memory_gb": 0.0},
    "damaged_meanwhile": {"folder": "other", "memory_gb": 0.0},
    "mended": {"folder": "other", "memory_gb": 0.0},
    "float16": {"dtype": "float16"},
}


def fake_encoder():
    return module_at(Path(__file__).parents[1] / "conftest.py").FakeEncoder()


def vectors(folder, form):
    """The vectors of all texts, and what this rank encoded."""
    settings = dict(FORMS[form])
    if "folder" in settings:
        settings["folder"] = folder / settings["folder"]
    encoder, told = fake_encoder(), []
    bank = GridBank(encoder, [1, 3], told.append, Keeping(**settings), "weights")
    found = [bank.vectors(TEXTS[:1], "query", SUB), bank.vectors(TEXTS + TEXTS[:9], "query", SUB)]
    return found, encoder.texts, told


def disagreement(rank):
    bank = GridBank(fake_encoder(), [3], lambda count: None)
    try:
        bank.vectors(TEXTS[rank:], "query", SUB)
    except RuntimeError as error:
        return str(error)
    return None


def streamed():
    """What both ranks find in a corpus that neither keeps, and what this one encoded."""
    streaming._MOST_TEXTS = 16
    encoder = fake_encoder()
    bank = GridBank(encoder, [1, 3], lambda count: None)
    cells = [Cell(1, 10), Cell(3, 16, "int8"), Cell(3, 16, "binary"), Cell(3, 16, "binary_rescore_int8")]
    values = encoder.encode(TEXTS[:7], [1, 3], "query")
    asked = Asked([f"q{number}" for number in range(7)], {}, 5, True, 2)
    asked = asked._replace(queries={cell: asked.unit(values, cell) for cell in cells})
    encoder.texts.clear()
    ids = [f"d{(number * 7) % len(TEXTS)}" for number in range(len(TEXTS))]
    documents = Documents(ids, lambda start, end: TEXTS[start:end], "document", None)
    return search_all(bank, documents, asked), encoder.texts


def damage(folder, back):
    """Turn a bit so many bytes before the end of the first large file, in place."""
    path = max(sorted((folder / "other").rglob("*.vectors")), key=lambda path: path.stat().st_size)
    with path.open("r+b") as file:
        file.seek(-back, 2)
        byte = file.read(1)[0]
        file.seek(-back, 2)
        file.write(bytes([byte ^ 1]))


def damaged_while_both_look(folder, rank):
    """`vectors`, a record being damaged before rank 1 looks and most often after rank 0 has."""
    stock = VectorStore.locate

    def late(cache, keys):
        if rank == 1 and len(keys) > 1:
            damage(folder, 400)
        return stock(cache, keys)

    VectorStore.locate = late
    try:
        return vectors(folder, "damaged_meanwhile")
    finally:
        VectorStore.locate = stock


def main(rank, folder):
    with joined():
        results = {}
        for form in FORMS:
            dist.barrier()  # the other rank has read what is damaged now
            if form == "mended" and rank == 0:
                damage(folder, 20)
            dist.barrier()
            if form == "damaged_meanwhile":
                results[form] = damaged_while_both_look(folder, rank)
            else:
                results[form] = vectors(folder, form)
        results["disagreement"] = disagreement(rank)
        results["streamed"] = streamed()
        return results
