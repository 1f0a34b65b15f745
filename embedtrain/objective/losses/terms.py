"""Several losses in one run: weighted sums, and losses that only some datasets use."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import torch
from torch import Tensor, nn

from embedtrain.content_ids import content_id
from embedtrain.objective.losses.pairs import on_host
from embedtrain.objective.schedule import Schedule
from embedtrain.objective.settings import not_negative
from embedtrain.objective.similarity.pairing import on_device
from embedtrain.transfers import moved
from embedtrain.types import Allowed, BlockName, Blocks, Guide, InputError, Pairing


class Term(nn.Module):
    """One loss of a sum.

    Args:
        loss: the loss; what it owns trains with the model.
        weight: its factor, a number or a schedule.
        tasks: names of the datasets whose queries it is for; None for all. A query of another dataset adds 0,
            and the mean stays one over all queries of the batch.

    Raises:
        InputError: if the weight is negative or `tasks` is empty.
    """

    def __init__(
        self, loss: nn.Module, weight: float | Schedule = 1.0, tasks: Sequence[str] | None = None
    ) -> None:
        super().__init__()
        if tasks is not None and (isinstance(tasks, str) or not tasks):
            raise InputError(f"tasks must be a list of dataset names, or left out for all, got {tasks!r}")
        self.loss, self.weight = loss, not_negative("weight", weight)
        self.tasks = None if tasks is None else tuple(tasks)

    def queries(self, pairing: Pairing) -> Tensor | None:
        """(B,) bool of the host, the queries this loss is for; None for all."""
        if self.tasks is None:
            return None
        return torch.isin(on_host(pairing).task, torch.tensor([content_id(name) for name in self.tasks]))


class Sum(nn.Module):
    """The weighted sum of several losses, each over the queries it is for.

    Raises:
        InputError: if there is no term.
    """

    def __init__(self, terms: Sequence[Term]) -> None:
        super().__init__()
        if not terms or not all(isinstance(term, Term) for term in terms):
            raise InputError("terms must be a list of embedtrain.objective.losses.terms.Term, at least one")
        self.terms = nn.ModuleList(terms)


def subset(pairing: Pairing, queries: Tensor) -> tuple[Pairing, Tensor]:
    """The pairing of some queries alone and the documents that belong to them, (c,) columns of the host.

    Args:
        pairing: of the whole batch.
        queries: (b,) int64 query numbers of the host, ascending.
    """
    whole, guide, device = on_host(pairing), pairing.guide, pairing.target.device
    ours = torch.isin(whole.owner, queries)
    ours[whole.target[queries]] = True
    columns = ours.nonzero()[:, 0]  # (c,)
    new_column = torch.full_like(whole.owner, -1)
    new_column[columns] = torch.arange(len(columns))
    new_query = torch.full_like(whole.target, -1)
    new_query[queries] = torch.arange(len(queries))
    owner = whole.owner[columns]
    part = Pairing(
        target=new_column[whole.target[queries]],
        owner=torch.where(owner < 0, owner, new_query[owner.clamp(min=0)]),
        task=whole.task[queries],
        step=pairing.step,
        candidates=_Part(pairing, queries, columns),
        scores=None if whole.scores is None else whole.scores[queries],
        teacher=None if whole.teacher is None else whole.teacher[columns],
        guide=None
        if guide is None
        else Guide(
            *(vectors[moved(rows, device)] for vectors, rows in zip(guide, (queries, columns), strict=True))
        ),
    )
    return on_device(part, device), columns


class _Part:
    """Candidates of a pairing, seen by some of its queries and documents."""

    def __init__(self, whole: Pairing, queries: Tensor, columns: Tensor) -> None:
        self._whole, self._queries, device = whole, queries, whole.target.device
        self._kept = {"docs": moved(columns, device), "queries": moved(queries, device)}
        self._counts = {"docs": len(whole.owner), "queries": len(whole.target)}

    @property
    def needs_student(self) -> bool:
        """As the whole pairing does."""
        return self._whole.candidates.needs_student

    def allowed(self, rows: Tensor, names: Collection[BlockName], student: Blocks | None) -> Allowed:
        """As the whole pairing says of these queries and documents."""
        whole = None if student is None else _each(student, self._widened)
        found = self._whole.candidates.allowed(self._queries[moved(rows, self._queries.device)], names, whole)
        return found._replace(blocks=_each(found.blocks, lambda block, side: block[:, self._kept[side]]))

    def _widened(self, block: Tensor, side: str) -> Tensor:
        """Similarities with all columns of the whole; what is not ours is unlike everything."""
        wide = block.new_full((len(block), self._counts[side]), -torch.inf)
        wide[:, self._kept[side]] = block
        return wide


def _each(blocks: Blocks, change: Callable[[Tensor, str], Tensor]) -> Blocks:
    """Every block that is there, changed; its columns are "docs" or "queries"."""
    named = {name: block for name, block in blocks._asdict().items() if block is not None}
    return Blocks(**{name: change(block, name.partition("_")[2]) for name, block in named.items()})
