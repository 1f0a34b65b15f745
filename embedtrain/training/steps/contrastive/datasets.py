"""Metrics of each dataset: loss, accuracy, and the share of negatives that each rule took out."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from embedtrain.objective.similarity.row_terms import RowReport
from embedtrain.training.distributed import sum_over_ranks
from embedtrain.training.steps.contrastive.batch_loss import Gather
from embedtrain.transfers import moved

COUNTED = ("queries", "loss", "accuracy", "considered")


def dataset_sums(
    rows: RowReport, task: Tensor, datasets: Mapping[int, str], gather: Gather
) -> dict[str, Tensor]:
    """Sums over the queries of each dataset, (T,) each, T datasets in ascending order of their ids.

    Args:
        rows: facts of the B queries of this rank's loss.
        task: (B,) dataset of each.
        datasets: id -> name of all datasets of the run, the same on every rank.
        gather: "gradient" if the B queries are those of all ranks already.
    """
    member = task[None, :] == torch.tensor(sorted(datasets), device=task.device)[:, None]
    member = moved(member, rows.loss.device).to(rows.loss.dtype)  # (T, B)
    counted = torch.ones_like(rows.loss), rows.loss, rows.rank_first, rows.considered
    columns = [*counted, *rows.removed.values()]
    sums = torch.stack([(member * column).sum(1) for column in columns])  # (K, T)
    sums = sums if gather == "gradient" else sum_over_ranks(sums)
    return dict(zip([*COUNTED, *rows.removed], sums, strict=True))


def dataset_facts(sums: Mapping[str, Tensor], datasets: Mapping[int, str]) -> dict[str, float]:
    """`dataset_sums` as metrics: train/<dataset>/loss, /accuracy and /removed_<rule>.

    A dataset without a query in the step is left out; so is the share of a rule where nothing could have been
    a negative.
    """
    if not sums:
        return {}
    facts: dict[str, float] = {}
    table = {name: values.tolist() for name, values in sums.items()}
    for place, task in enumerate(sorted(datasets)):
        queries, considered = table["queries"][place], table["considered"][place]
        if not queries:
            continue
        where = f"train/{datasets[task]}"
        facts |= {f"{where}/{name}": table[name][place] / queries for name in ("loss", "accuracy")}
        if considered:
            rules = [name for name in table if name not in COUNTED]
            facts |= {f"{where}/removed_{rule}": table[rule][place] / considered for rule in rules}
    return facts
