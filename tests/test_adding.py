"""A pooling, a row loss, a plan and a step, each added as "Where do I change ..." in ARCHITECTURE.md says.

One source file and one YAML each, written into a copy of the package, and used by real runs in a process that
imports the copy. What is added here needs no other change, or a test of these fails.
"""

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

from small_runs import read_rows

import embedtrain
from embedtrain.settings.places import config_dir

ADDED = {
    "embedtrain/model/pooling/middle.py": '''
from embedtrain.model.pooling.plain import Mean, last_pooled, masked_mean, register


@register
class Middle(Mean):
    """Half the average, half the last token."""

    name = "middle"
    sentence_transformers_key = None

    def forward(self, hiddens, mask, layer):
        return (masked_mean(hiddens[-1], mask) + last_pooled(hiddens[-1], mask)) / 2
''',
    "conf/pooling/middle.yaml": "_target_: embedtrain.model.pooling.middle.Middle\n",
    "embedtrain/objective/losses/hinge.py": '''
from torch import nn


class Hinge(nn.Module):
    """How far any candidate comes within `margin` of the positive."""

    similarity, blocks = "cosine", ("query_docs",)

    def __init__(self, margin: float = 0.5):
        super().__init__()
        self.margin = margin

    def rows(self, scores, allowed, facts):
        scores, target = scores.query_docs, facts.target[:, None]
        excess = (scores - scores.gather(1, target) + self.margin).clamp(min=0) * allowed.query_docs
        return excess.scatter(1, target, 0.0).mean(1)
''',
    "conf/loss/hinge.yaml": "_target_: embedtrain.objective.losses.hinge.Hinge\nmargin: 0.3\n",
    "embedtrain/objective/plan/alternate.py": '''
from embedtrain.types import SubModel, Weighted


class Alternate:
    """The uncut model, and at every other step its first half too."""

    def __init__(self, *, num_layers: int, width: int):
        self.sub_models = (SubModel(num_layers // 2, width // 2), SubModel(num_layers, width))

    def __call__(self, step):
        return tuple(Weighted(sub, 1.0) for sub in self.sub_models[step % 2 :])
''',
    "conf/plan/alternate.yaml": "_target_: embedtrain.objective.plan.alternate.Alternate\n",
    "embedtrain/training/steps/pull.py": '''
from dataclasses import dataclass

import torch

from embedtrain.training.steps.contrastive.collate import PairCollate
from embedtrain.training.steps.protocol import Report, Validated
from embedtrain.types import distinct_layers


@dataclass(frozen=True)
class Pull:
    """Settings of training that pulls each query to its positive, and pushes nothing."""

    power: float = 1.0

    def step(self, parts):
        return PullStep(parts.encoder, self.power)


class PullStep:
    module = None

    def __init__(self, encoder, power):
        self.power, self.seen = power, []
        self.collate = self.validation_collate = PairCollate(encoder.process)

    def check(self, data, plan, encoder, ranks):
        pass

    def to(self, device):
        pass

    def distances(self, batch, encoder, subs):
        texts, links = encoder(batch.inputs, tuple(sorted({sub.layer for sub in subs}))), batch.links
        query, docs = texts.rows(links.query), texts.rows(links.docs[links.positive])
        return [1 - (query.at(sub) * docs.at(sub)).sum(1) for sub in subs]

    def loss(self, batch, context):
        found = self.distances(batch, context.encoder, [sub for sub, _ in context.chosen])
        loss = sum(each.pow(self.power).mean() for each in found)
        context.report(Report(loss.detach(), batch.links.rows))
        return loss

    def validate(self, batch, encoder, sub_models):
        self.seen.append(torch.stack(self.distances(batch, encoder, sub_models)))

    def validated(self, sub_models, device):
        near = 1 - torch.cat(self.seen, 1)
        self.seen = []
        return Validated("nearness", dict(zip(sub_models, near.mean(1).tolist())), near.shape[1])

    def facts(self):
        return {}

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass
''',
    "conf/step/pull.yaml": "_target_: embedtrain.training.steps.pull.Pull\n",
}
RUN = """
import json, sys
from small_runs import read_rows, train
from embedtrain.model.folder.export import load_encoder, save_encoder
from embedtrain.types import SubModel
runs = [train(words) for words in json.loads(sys.argv[1])]
texts, cut = ["a cat sleeps", "bird"], SubModel(2, 16)
encoder = load_encoder(runs[0].folder.path / "model")
expected = encoder.encode(texts, (2,)).at(cut)
folder = save_encoder(encoder, "cut", cut)
assert (load_encoder(folder).encode(texts, (2,)).at(cut) == expected).all()
from sentence_transformers import SentenceTransformer
shipped = SentenceTransformer(str(folder), device="cpu", local_files_only=True, trust_remote_code=True)
assert abs(shipped.encode(texts, convert_to_tensor=True) - expected).max() < 1e-5
"""


def test_what_is_written_beside_the_others_trains_and_ships(small_run, small_data, tmp_path):
    package = Path(embedtrain.__file__).parent
    shutil.copytree(package, tmp_path / "embedtrain", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(config_dir("conf"), tmp_path / "conf")
    for name, text in ADDED.items():
        assert not (tmp_path / name).exists(), "the test would overwrite it"
        (tmp_path / name).write_text(text.lstrip(), "utf-8")
    words = [word for word in small_run if not word.startswith("plan.")]
    words += ["pooling=middle", "plan=alternate", "trainer.max_steps=4", f"output_root={tmp_path}/runs"]
    words += [f"data.validation={small_data}/validation.jsonl", "trainer.val_check_interval=4"]
    runs = [[*words, "name=hinge", "loss=hinge"], [*words, "name=pull", "step=pull", "step.power=2.0"]]
    shared = Path(__file__).parent / "shared"
    command = [sys.executable, "-c", RUN, json.dumps(runs)]
    place = {"PYTHONPATH": f"{tmp_path}:{shared}", "HF_MODULES_CACHE": str(tmp_path / "modules")}
    place |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=place, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    for name in ("hinge", "pull"):
        rows = read_rows(tmp_path / "runs" / name / "metrics.jsonl")
        losses = [row["train/loss"] for row in rows if "train/loss" in row]
        assert len(losses) == 4
        assert all(0 < loss < math.inf for loss in losses)
        weights = json.loads((tmp_path / "runs" / name / "weights.json").read_text("utf-8"))
        assert max(block["changed"] for block in weights["blocks"]) > 0.5, "it trained"
        assert any("val/mean" in row for row in rows)
