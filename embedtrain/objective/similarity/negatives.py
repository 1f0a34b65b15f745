"""The settings of who may be a negative: what queries share, for all data sets or one, and the rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from embedtrain.objective.similarity.pairing import Queued, Scope, Sharing, pair
from embedtrain.rules import Rule, checked_rules
from embedtrain.types import Guide, InputError, Links, Pairing


class Negatives:
    """`Links` of a batch to its `Pairing`; see `pairing.pair` for the definitions."""

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
            in_batch: false contrasts a query with the documents it brought itself alone.
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
        self, links: Links, step: int, guide: Guide | None = None, queued: Queued | None = None
    ) -> Pairing:
        """The pairing of a (gathered) batch at an optimiser step.

        Args:
            links: the batch.
            step: optimiser step, which schedules of the rules are functions of.
            guide: the guide's vectors of the queries and all documents; needed where `needs` says so.
            queued: documents of earlier steps.

        Raises:
            InputError: where a rule needs a guide and there is none.
        """
        return pair(
            links,
            step=step,
            scope=self.sharing.scope,
            in_batch=self.sharing.in_batch,
            datasets=self.datasets,
            rules=self.rules,
            guide=guide,
            queued=queued,
        )
