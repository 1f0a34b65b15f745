"""Clients in a fresh environment without embedtrain, as docs/clients.md says."""

import json
import subprocess
import sys
import venv

import pytest
import torch

from embedtrain.model.folder.export import load_encoder
from embedtrain.types import SubModel

TEXTS = ["a cat sleeps", "the man plays guitar in the old house", "", "word " * 100]
FASTEMBED = """
import json, sys
from fastembed import TextEmbedding
from fastembed.common.model_description import ModelSource, PoolingType
folder, texts = sys.argv[1], json.loads(sys.argv[2])
TextEmbedding.add_custom_model(model="my/model", pooling=PoolingType.MEAN, normalization=True,
    sources=ModelSource(hf="my/model"), dim=16, model_file="onnx/model.onnx")
found = TextEmbedding("my/model", specific_model_path=folder).embed(texts)
print(json.dumps([row.tolist() for row in found]))
"""


@pytest.mark.slow
def test_fastembed_in_a_fresh_environment_gives_the_vectors(tiny_bert, tmp_path):
    pytest.importorskip("onnxscript")
    from embedtrain.model.folder.onnx import export_onnx

    encoder = load_encoder(tiny_bert)
    export_onnx(encoder, tmp_path / "model", SubModel(2, 16))
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    install = [python, "-m", "pip", "install", "-q", "fastembed==0.9.1"]
    if subprocess.run(install, check=False, capture_output=True).returncode:
        pytest.skip("fastembed cannot be installed here")
    words = [python, "-I", "-c", FASTEMBED, tmp_path / "model", json.dumps(TEXTS)]
    said = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    expected = encoder.encode(TEXTS, (2,)).at(SubModel(2, 16))
    torch.testing.assert_close(torch.tensor(json.loads(said)), expected, rtol=0, atol=1e-5)
