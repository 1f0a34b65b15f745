"""Run by test_sharding.py: training runs on one rank and on two that share the weights."""

import torch
from processes import wait_until
from small_runs import StopAfter, StopError, compose

from embedtrain.cli.process.logs import set_up_logs
from embedtrain.run import build as parts
from embedtrain.run.publish import publish
from embedtrain.run.run import Run

PAIRS = "plan.pairs=[[1,8],[2,16],[4,32]]"
SMALL = "backbone.max_tokens=24"  # micro-batches of few tokens, of which ranks have different numbers
CHUNKS = ["gradcache=chunks", "gradcache.max_tokens=40", "trainer.accumulate_grad_batches=2"]
RECOMPUTE = "backbone.gradient_checkpointing=true"
CASES = {  # name -> words
    "whole": [PAIRS, "data.batch_size=6", SMALL],
    "chunks": [PAIRS, "data.batch_size=6", SMALL, *CHUNKS, "backbone.packing=true"],
    "layers": ["plan=random2d", "plan.dims=[8,32]", "data.batch_size=6", RECOMPUTE],
    "lora": [PAIRS, "data.batch_size=2", "backbone.lora={rank: 2, dropout: 0.0}", "pooling=last_layer"],
}


make_encoder = parts.make_encoder


def exact(config):
    """An encoder in float64, for which Lightning has no name with FSDP2, and without dropout."""
    encoder = make_encoder(config).double()
    for part in encoder.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0  # each rank draws its own
    return encoder


def train(words, stop=None):
    run = Run(compose(words))
    run.stage.step.module.double()
    if stop is not None:
        run.stage.trainer.callbacks.append(StopAfter(stop))
    try:
        run.fit()
        publish(run)
    except StopError:
        assert stop is not None
    finally:
        run.folder.release()


def main(rank, world, folder, words):
    """Every case; then begin a run that the other number of ranks ends, and end what that began."""
    set_up_logs()
    parts.make_encoder = exact
    shared = [*words, f"trainer.devices={world}", f"trainer.shard={str(world > 1).lower()}"]
    for name, more in CASES.items():
        train([*shared, *more, f"name={name}", f"output_root={folder}/{world}"])
    chunks, other = [*shared, *CASES["chunks"], f"output_root={folder}/moved"], 3 - world
    train([*chunks, f"name=from_{world}"], stop=1)
    (folder / f"stopped.{world}.{rank}").touch()
    wait_until(lambda: len(list(folder.glob(f"stopped.{other}.*"))) == other)
    train([*chunks, f"name=from_{other}"])
