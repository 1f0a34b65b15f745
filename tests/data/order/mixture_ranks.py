"""Run by test_mixture_ranks: what this rank trains on, in whole runs and where other ranks began."""

from unittest import mock

import pytorch_lightning as pl
import torch
from data_modules import QUIET, data_module, one_token

from embedtrain.data.order import windows
from embedtrain.training.steps.contrastive.collate import PairCollate

SAVED_AFTER = 7  # batches
FEATURES = {
    "one task": {"max_epochs": 2},
    "mixed": {"batches": "mixed", "max_negatives": 2, "draw_negatives": "sample"},
    "by length": {"group_by_length": True, "sampling": "temperature", "max_steps": 14},
    "weights": {"sampling": "weights", "max_steps": 20, "num_workers": 1},
}


class Watcher(pl.LightningModule):
    """One parameter; keeps the rows, tasks and documents of every step."""

    def __init__(self, save_to=None):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))
        self.seen, self.save_to = [], save_to

    def training_step(self, batch, index):
        links = batch.links
        ids = links.content_ids[links.docs]
        docs = [tuple(ids[links.owner == place].tolist()) for place in range(len(links.rows))]
        self.seen.append(list(zip(links.rows.tolist(), links.task.tolist(), docs, strict=True)))
        return self.weight * batch.inputs.values.float().mean()

    def on_train_batch_end(self, *_):
        if self.save_to is not None and len(self.seen) == SAVED_AFTER:
            self.trainer.save_checkpoint(self.save_to)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1e-3)


def run(folder, feature, world, *, save_to=None, start_from=None):
    """Step by step what this rank is given."""
    options = {"batch_size": 8, "seed": 3, "collate": PairCollate(one_token), **FEATURES[feature]}
    train = [{"source": str(folder / f"{name}.jsonl"), "task": name} for name in "abc"]
    train[2]["cap"] = 20
    strategy = "ddp" if world > 1 else "auto"
    own = {"devices": world, "strategy": strategy, "enable_checkpointing": False, "default_root_dir": folder}
    trainer = pl.Trainer(max_epochs=1, **own, **QUIET)
    watcher = Watcher(save_to)
    with mock.patch.object(windows, "WINDOW", 16):
        data = data_module(train=train, **options)
        trainer.fit(watcher, datamodule=data, ckpt_path=start_from, weights_only=False)
    return watcher.seen


def main(rank, folder):
    return {
        feature: (
            run(folder, feature, 2, save_to=folder / f"two {feature}.ckpt"),
            run(folder, feature, 2, start_from=folder / f"one {feature}.ckpt"),
        )
        for feature in FEATURES
    }
