"""A pooling is added by one source file: configs, folders and exported folders know it by its name."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import embedtrain

SOURCE = '''
from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from embedtrain.model.pooling.plain import Mean, last_pooled, masked_mean, register


@register
class MeanAndLast(nn.Module):
    """The sum of the mean and the last token, (M, H)."""

    name: ClassVar[str] = "mean_and_last"
    needs_all_layers: ClassVar[bool] = False
    needs_eos: ClassVar[bool] = False

    def forward(self, hiddens: Sequence[Tensor], mask: Tensor, layer: int) -> Tensor:
        return masked_mean(hiddens[-1], mask) + last_pooled(hiddens[-1], mask)

    settings, cut, restrict = Mean.settings, Mean.cut, Mean.restrict
'''
USE = """
import sys
import torch
from sentence_transformers import SentenceTransformer
from embedtrain.model.folder.export import load_encoder, save_encoder
from embedtrain.model.pooling import named_pooling
from embedtrain.types import SubModel
model, out = sys.argv[1:]
encoder = load_encoder(model, pooling="mean_and_last")
folder = save_encoder(encoder, out, SubModel(2, 16))
expected = encoder.encode(["a text", "another one"], (2,)).at(SubModel(2, 16))
again = load_encoder(folder).encode(["a text", "another one"], (2,)).at(SubModel(2, 16))
assert torch.equal(again, expected)
shipped = SentenceTransformer(out, device="cpu", local_files_only=True, trust_remote_code=True)
found = shipped.encode(["a text", "another one"], convert_to_tensor=True)
torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
"""


def test_one_file_is_all_that_a_pooling_needs(tiny_llama, tmp_path):
    package = Path(embedtrain.__file__).parent
    shutil.copytree(package, tmp_path / "embedtrain", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "embedtrain/model/pooling/mean_and_last.py").write_text(SOURCE)
    place = {
        **os.environ,
        "PYTHONPATH": str(tmp_path),
        "HF_MODULES_CACHE": str(tmp_path / "modules"),
        "HF_HUB_OFFLINE": "1",
    }
    command = [sys.executable, "-c", USE, str(tiny_llama), str(tmp_path / "model")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=place)
    assert done.returncode == 0, done.stderr
