import pytest
import torch

from embedtrain.objective.similarity.row_terms import RowReport
from embedtrain.training.steps.contrastive.datasets import dataset_facts, dataset_sums

NAMES = {30: "quora", 10: "nli", 20: "absent"}


def report():
    return RowReport(
        loss=torch.tensor([1.0, 2.0, 4.0]),
        rank_first=torch.tensor([True, False, True]),
        considered=torch.tensor([4, 6, 0]),
        removed={"margin_pos": torch.tensor([1, 2, 0]), "student_margin_pos": torch.tensor([0, 5, 0])},
    )


def test_each_dataset_has_the_mean_of_its_queries_and_the_share_each_rule_took():
    sums = dataset_sums(report(), torch.tensor([30, 30, 10]), NAMES, "gradient")
    assert dataset_facts(sums, NAMES) == pytest.approx(
        {
            "train/quora/loss": 1.5,
            "train/quora/accuracy": 0.5,
            "train/quora/removed_margin_pos": 0.3,
            "train/quora/removed_student_margin_pos": 0.5,
            "train/nli/loss": 4.0,
            "train/nli/accuracy": 1.0,
        }
    )


def test_without_sums_nothing_is_said():
    assert dataset_facts({}, NAMES) == {}
