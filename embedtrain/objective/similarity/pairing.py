"""Who may be a negative of whom, decided once per batch from text ids, labels and rules, for every sub-model.

Nothing of size B x C is held: what is allowed is worked out for the queries asked for.

Letters: B queries, b some of them, C documents (candidates), Q of them from earlier steps.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache
from typing import Literal, NamedTuple, cast, get_args

import torch
from torch import Tensor

from embedtrain.content_ids import content_id
from embedtrain.objective.similarity.relevance import Relevance
from embedtrain.rules import Rule, Scorer, apply_rules, row_counts
from embedtrain.transfers import moved, moved_together
from embedtrain.types import Allowed, BlockName, Blocks, Guide, InputError, Links, Pairing

Scope = Literal["all", "own"]
QUERY_DOCS: tuple[BlockName, ...] = ("query_docs",)


class Sharing(NamedTuple):
    """What a query takes from other queries as negatives."""

    scope: Scope = "all"  # "own": not the hard negatives that others brought, only their positives
    in_batch: bool = True  # False: nothing that others brought

    def checked(self, where: str = "") -> Sharing:
        """Itself. Raises InputError, beginning with `where`, if a setting is none of the choices."""
        if self.scope not in get_args(Scope):
            raise InputError(f'{where}scope must be "all" or "own", got {self.scope!r}')
        if not isinstance(self.in_batch, bool):
            raise InputError(f"{where}in_batch must be true or false, got {self.in_batch!r}")
        return self


class Queued(NamedTuple):
    """Documents of earlier steps, in the columns after the batch's."""

    content_ids: Tensor  # (Q,) int64
    task: Tensor  # (Q,) int64
    hard: Tensor  # (Q,) bool, True where it was brought as a hard negative


def hard_documents(links: Links) -> Tensor:
    """(N,) bool, the documents that are no query's positive."""
    hard = torch.ones_like(links.docs, dtype=torch.bool)
    hard[links.positive] = False
    return hard


def on_device(pairing: Pairing, device: torch.device) -> Pairing:
    """A pairing of the host on a device; there it knows the host's, so that nobody waits for its numbers."""
    if device.type == "cpu":
        return pairing
    numbers = pairing.target, pairing.owner, pairing.task, pairing.scores, pairing.teacher
    target, owner, task, scores, teacher = moved_together(numbers, device)
    return Pairing(
        cast(Tensor, target),
        cast(Tensor, owner),
        cast(Tensor, task),
        pairing.step,
        pairing.candidates,
        scores,
        teacher,
        pairing.guide,
        here=pairing,
    )


class BatchCandidates:
    """`Candidates` of one batch, as `Negatives` defines them, a few rows at a time: memory is b x (B + C)."""

    def __init__(
        self,
        links: Links,
        queued: Queued,
        sharing: Sharing,
        datasets: Mapping[str, Sharing],
        rules: Sequence[Rule],
        guide: Guide | None,
        step: int,
        device: torch.device,
    ) -> None:
        self.relevance, self.device = Relevance(links, queued.content_ids, device), device
        self._target = links.positive  # of the host
        owner = torch.cat([links.owner, torch.full_like(queued.task, -1)])  # (C,)
        doc_task = torch.cat([links.task[links.owner], queued.task])  # (C,)
        hard = torch.cat([hard_documents(links), queued.hard])  # (C,)
        own_hard = torch.full_like(links.task, sharing.scope == "own", dtype=torch.bool)  # (B,)
        alone = torch.full_like(links.task, not sharing.in_batch, dtype=torch.bool)  # (B,)
        self.shares_all = {sharing, *datasets.values()} == {Sharing()}
        for name, other in datasets.items():
            mine = links.task == content_id(name)
            own_hard[mine], alone[mine] = other.scope == "own", not other.in_batch
        there = moved_together([links.positive, links.task, owner, doc_task, hard, own_hard, alone], device)
        self.target, self.task, self.owner, self.doc_task, self.hard, self.own_hard, self.alone = (
            cast(Tensor, part) for part in there
        )
        self.rules, self.guide, self.step = tuple(rules), guide, step

    @property
    def needs_student(self) -> bool:
        """Whether a rule reads the similarities of the model in training."""
        return any(rule.by == "student" for rule in self.rules)

    def allowed(self, rows: Tensor, names: Collection[BlockName], student: Blocks | None) -> Allowed:
        """As `Candidates.allowed`."""
        here = rows.to(self._target.device)
        rows = moved(rows, self.device)
        target = self.target[rows]  # (b,)
        each = target[:, None]  # (b, 1)
        related = self._docs(rows, here)  # (b, C)
        blocks: dict[BlockName, Tensor] = {}
        if "doc_docs" in names:
            blocks["doc_docs"] = related.scatter(1, each, False)
        blocks["query_docs"] = related.scatter_(1, each, True)
        if "query_queries" in names:
            blocks["query_queries"] = self._open_queries(rows) & ~self.relevance.queries(here)
        if "doc_queries" in names:
            shared = self.target[None, :] == target[:, None]  # (b, B)
            unrelated = ~self.relevance.queries_of(self._target[here])
            blocks["doc_queries"] = self._open_queries(rows) & unrelated & ~shared
            blocks["doc_queries"].scatter_(1, rows[:, None], True)
        considered = row_counts(blocks["query_docs"]) - 1
        removed = apply_rules(
            self.rules,
            blocks,
            {"query_docs": target, "doc_queries": rows},
            self._similar(rows, student),
            self.step,
        )
        return Allowed(Blocks(**blocks), considered, removed)

    def _docs(self, rows: Tensor, here: Tensor) -> Tensor:
        """Documents that are unrelated to the query and shared with it, (b, C)."""
        open_ = (self.doc_task[None, :] == self.task[rows, None]) & ~self.relevance.docs(here)
        if self.shares_all:
            return open_
        mine = self.owner[None, :] == rows[:, None]
        kept_apart = (self.hard[None, :] & self.own_hard[rows, None]) | self.alone[rows, None]
        return open_ & (mine | ~kept_apart)

    def _open_queries(self, rows: Tensor) -> Tensor:
        """Queries of the row's task, unless it contrasts with nothing of others, (b, B)."""
        return (self.task[None, :] == self.task[rows, None]) & ~self.alone[rows, None]

    def _similar(self, rows: Tensor, student: Blocks | None) -> Callable[[Scorer, BlockName], Tensor]:
        """Cosines of a block by a scorer, each worked out once."""

        @cache
        def similar(by: Scorer, name: BlockName) -> Tensor:
            if by == "guide":
                assert self.guide is not None
                return _guide_block(self.guide, rows, self.target[rows], name)
            cosines: Tensor | None = None if student is None else getattr(student, name)
            if cosines is None:
                raise ValueError(f"a rule compares by the student and got no {name} similarities of it")
            return cosines

        return similar


def _guide_block(guide: Guide, rows: Tensor, target: Tensor, name: BlockName) -> Tensor:
    """The guide's cosines of some rows of a block, (b, n), by one product in full precision."""
    left = guide.query[rows] if name.startswith("query") else guide.docs[target]
    right = guide.docs if name.endswith("docs") else guide.query
    with torch.autocast(left.device.type, enabled=False):
        return left @ right.T
