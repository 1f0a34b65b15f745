"""What every check is given, and what it gives."""

from __future__ import annotations

import json
import math
import random
import shutil
from pathlib import Path
from typing import NamedTuple

import torch
from transformers import BertConfig, BertModel

from embedtrain.devices import device_of
from embedtrain.settings.places import package_path

WORDS = "a the cat dog bird fish man woman child plays runs eats sleeps guitar piano ball tree sun".split()


class Measured(NamedTuple):
    """One number, and the bounds that it should keep; None where it is only taken down."""

    name: str
    value: float
    least: float | None = None
    most: float | None = None

    @property
    def good(self) -> bool:
        """Whether it keeps them."""
        low = self.least is None or self.value >= self.least
        return math.isfinite(self.value) and low and (self.most is None or self.value <= self.most)

    @property
    def bounds(self) -> str:
        """As a person reads them."""
        low = "" if self.least is None else f">= {self.least:g} "
        return low + ("" if self.most is None else f"<= {self.most:g}")

    def plain(self) -> dict[str, object]:
        """For JSON."""
        return {**self._asdict(), "good": self.good}


class Setting(NamedTuple):
    """Where and how large the checks are."""

    device: torch.device
    model: str  # a folder
    folder: Path  # of this call
    tiny: bool

    @property
    def on_gpu(self) -> bool:
        """Whether what needs CUDA can run."""
        return self.device.type == "cuda"

    @property
    def said(self) -> str:
        """Name of the device."""
        return torch.cuda.get_device_name(self.device) if self.on_gpu else self.device.type

    @property
    def accelerator(self) -> str:
        """As `trainer` has it."""
        return "gpu" if self.on_gpu else "cpu"

    def size(self, tiny: int, full: int) -> int:
        """A number of things."""
        return tiny if self.tiny else full

    def words(self, name: str, *more: str) -> list[str]:
        """The words after `embedtrain-train` of a small run."""
        config = json.loads((Path(self.model) / "config.json").read_text("utf-8"))
        whole = config["num_hidden_layers"], config["hidden_size"]
        return [
            f"name={name}", f"output_root={self.folder}", f"backbone.path={self.model}",
            f"data.train={self.rows()}", f"data.batch_size={self.size(8, 64)}", f"trainer={self.accelerator}",
            f"plan.pairs=[[1,16],[{whole[0]},{whole[1]}]]", "trainer.log_every_n_steps=1", "optim.lr=1e-4",
            *more,
        ]  # fmt: skip

    def rows(self) -> Path:
        """A file of pairs of many lengths."""
        file, draw = self.folder / "rows.jsonl", random.Random(0)
        if not file.exists():
            lengths = [(2 + n % 5, 4 + n % 23) for n in range(self.size(96, 8_192))]
            pairs = [[" ".join(draw.choices(WORDS, k=length)) for length in both] for both in lengths]
            rows = [{"query": one, "positive": f"{one} {two}"} for one, two in pairs]
            file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        return file

    def data_root(self) -> Path:
        """A retrieval task and one of similarity, in the local layout."""
        root, draw = self.folder / "data", random.Random(1)
        if not root.exists():
            texts = [" ".join(draw.choices(WORDS, k=8)) for _ in range(self.size(24, 400))]
            files = {
                "retrieval/find/corpus": [{"id": f"d{n}", "text": text} for n, text in enumerate(texts)],
                "retrieval/find/queries": [
                    {"id": f"q{n}", "text": text[:20]} for n, text in enumerate(texts)
                ],
                "retrieval/find/qrels": [
                    {"query_id": f"q{n}", "corpus_id": f"d{n}", "score": 1} for n in range(len(texts))
                ],
            }
            for name, rows in files.items():
                path = root / f"{name}.jsonl"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        return root

    def base(self) -> str:
        """A folder of BERT-base with random weights and the tokenizer of the model; tiny the model itself."""
        if self.tiny:
            return self.model
        folder = self.folder / "bert_base"
        if not folder.exists():
            torch.manual_seed(0)
            BertModel(BertConfig(attn_implementation="sdpa")).save_pretrained(folder)
            for file in Path(self.model).glob("*"):
                if file.name.startswith(("tokenizer", "vocab", "special_tokens")):
                    shutil.copyfile(file, folder / file.name)
        return str(folder)


def make_setting(device: str, model: str, folder: Path, *, tiny: bool) -> Setting:
    """The setting of a call."""
    located = package_path(model) if model.startswith("package:") else model
    return Setting(device_of(device), located, folder, tiny)


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    """The norm of the difference as a share of that of the expected."""
    one, two = found.detach().double().cpu(), expected.detach().double().cpu()
    return float((one - two).norm() / two.norm().clamp(min=1e-30))
