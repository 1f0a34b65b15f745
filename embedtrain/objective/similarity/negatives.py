"""The settings of who may be a negative: what queries share, for all data sets or one, and the rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from embedtrain.objective.similarity.pairing import BatchCandidates, Queued, Scope, Sharing, on_device
from embedtrain.rules import Rule, checked_rules
from embedtrain.types import Guide, InputError, Links, Pairing


class Negatives:
    """`Links` of a batch to its `Pairing`: targets now, negatives when they are asked for.

    A query's related texts are its own and all its labelled positives; queries of equal text and task share
    their labels. With q_i the query of row i, p_i its positive, everything within one task:

        query_docs     q_i and document c, unless c's text is related to q_i; True at p_i.
        query_queries  q_i and q_j, unless they have a related text in common (so not itself, no equal query,
                       no query with a positive in common, none whose text is a positive of the other).
        doc_queries    p_i and q_j, unless p_i's text is related to q_j; True at q_i. The transpose of
                       query_docs at the targets, but a query that shares the target is out.
        doc_docs       p_i and document c, as query_docs; False at p_i.

    What queries share (`Sharing`) leaves out more, then the rules do, in their order.
    """

    def __init__(
        self,
        scope: Scope = "all",
        in_batch: bool = True,
        rules: Sequence[Rule] = (),
        datasets: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        """Set what holds for every batch.

        Args:
            scope: "all" contrasts a query with every document of the batch; "own" leaves out the hard
                negatives that other queries brought, and keeps their positives.
            in_batch: false contrasts a query with the documents it brought itself alone, as NV-Embed's second
                stage (Lee et al. 2024, 2405.17428).
            rules: what removes likely false negatives, in this order.
            datasets: `scope` or `in_batch` of single data sets, by the name of their task; what is not given
                is as above.

        Raises:
            InputError: for a setting that does not exist, or two rules of one name.
        """
        self.sharing = Sharing(scope, in_batch).checked()
        self.rules = checked_rules(rules)
        self._given = dict(datasets or {})
        self.datasets = {name: self._own(name, given) for name, given in self._given.items()}

    def _own(self, name: str, given: Mapping[str, Any]) -> Sharing:
        where = f"datasets.{name}."
        if not isinstance(given, Mapping) or not given or set(given) - set(Sharing._fields):
            raise InputError(f"{where[:-1]} takes {' and '.join(Sharing._fields)}, got {given!r}")
        return self.sharing._replace(**given).checked(where)

    def share(self, in_batch: Mapping[str, bool]) -> None:
        """Set `in_batch` of data sets, as the data has it. Raises InputError where `datasets` differs."""
        for name, value in in_batch.items():
            here = self._given.get(name, {}).get("in_batch", value)
            if here != value:
                raise InputError(
                    f"data.train has in_batch={str(value).lower()} for {name!r} and negatives.datasets has "
                    f"{str(here).lower()}: leave one of them out"
                )
            self.datasets[name] = self.datasets.get(name, self.sharing)._replace(in_batch=value)

    @property
    def tasks(self) -> tuple[str, ...]:
        """The data sets named here; `check_tasks` refuses those that the data does not have."""
        return tuple(self.datasets)

    @property
    def needs(self) -> frozenset[str]:
        """What must be there besides the batch: "guide", or nothing."""
        return frozenset({"guide"} & {rule.by for rule in self.rules})

    def check_tasks(self, known: Sequence[str]) -> None:
        """Refuse data sets that the data does not have. Raises InputError naming them and those it has."""
        unknown = [name for name in self.tasks if name not in known]
        if unknown:
            raise InputError(
                f"negatives.datasets names {', '.join(map(repr, unknown))}, which the data does not have; "
                f"it has {', '.join(map(repr, sorted(known)))}"
            )

    def __call__(
        self,
        links: Links,
        step: int = 0,
        guide: Guide | None = None,
        queued: Queued | None = None,
        device: torch.device | None = None,
    ) -> Pairing:
        """The pairing of a (gathered) batch at an optimiser step.

        Args:
            links: the batch.
            step: optimiser step, which schedules of the rules are functions of.
            guide: the guide's vectors of the queries and all documents; needed where `needs` says so.
            queued: documents of earlier steps.
            device: where the embeddings are; None where the links are.

        Raises:
            InputError: where a rule needs a guide and there is none.
        """
        wanting = [rule.name for rule in self.rules if rule.by == "guide"]
        if wanting and guide is None:
            raise InputError(
                f"rule {wanting[0]} compares by a guide and there is none: choose guide=..., or let the rule "
                "compare by=student"
            )
        none = links.content_ids.new_zeros(0)
        later = Queued(none, none, none.bool()) if queued is None else queued
        there = links.task.device if device is None else device
        candidates = BatchCandidates(
            links, later, self.sharing, self.datasets, self.rules, guide, step, there
        )
        teacher = links.teacher
        if teacher is not None:
            teacher = torch.cat([teacher, teacher.new_full((len(later.task),), torch.nan)])
        pairing = Pairing(
            target=links.positive,
            owner=torch.cat([links.owner, torch.full_like(later.task, -1)]),
            task=links.task,
            step=step,
            candidates=candidates,
            scores=links.scores,
            teacher=teacher,
            guide=guide,
        )
        return on_device(pairing, there)
