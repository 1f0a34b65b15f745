"""The models that are merged: read, and found to be of one kind."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from embedtrain.files.run_record import Record, read_record
from embedtrain.merging.weights import check_alike
from embedtrain.model.encoder import Encoder
from embedtrain.model.folder.contract import HISTORY, Contract
from embedtrain.model.folder.describe import contract_of, plain_weights
from embedtrain.model.folder.export import load_encoder
from embedtrain.model.gates import match_gates
from embedtrain.run.merging.base import check_base, recorded_base, recorded_hash, start_hash
from embedtrain.run.models import model_folder, name_of, run_folder, source_of
from embedtrain.types import InputError, SubModel

log = logging.getLogger(__name__)


class Ingredient(NamedTuple):
    """A model that is merged."""

    name: str  # of its run or folder
    source: str  # whole path or hub name
    folder: Path  # of its run, where its scores may be
    record: Record | None  # of its run; None of another folder
    contract: Contract
    weights: dict[str, Tensor]
    datasets: tuple[str, ...]


class Ingredients(NamedTuple):
    """All of them, and an encoder that takes the weights of each."""

    every: Sequence[Ingredient]
    encoder: Encoder
    base: dict[str, Tensor] | None  # None: not known, and not needed
    base_facts: dict[str, str]  # as of a record

    @property
    def names(self) -> list[str]:
        """Of messages and tables."""
        return [one.name for one in self.every]

    @property
    def trained(self) -> tuple[SubModel, ...]:
        """The sub-models that any was trained at."""
        return tuple(sorted({sub for one in self.every for sub in one.contract.trained}))


def read_ingredients(
    runs: Sequence[str], base: str | None, *, needs_base: bool, trust_remote_code: bool = False
) -> Ingredients:
    """The models of all runs, which agree in all that decides an embedding but their weights.

    Args:
        runs: folders and hub names.
        base: what training began with; None: what the runs record.
        needs_base: whether there must be one.
        trust_remote_code: whether code in their folders may run.

    Raises:
        InputError: for fewer than two, one that cannot be read, or two that do not agree, naming the field.
    """
    if len(runs) < 2:
        raise InputError(f"merging takes two runs or more, got {list(runs)}: name them in runs=[...]")
    encoder, every = None, list[Ingredient]()
    for text in runs:
        loaded = load_encoder(model_folder(text), trust_remote_code=trust_remote_code)
        encoder = loaded if encoder is None else encoder
        folder = run_folder(text)
        record, contract = read_record(folder / "config.yaml"), contract_of(loaded)
        if contract.rotation:
            raise InputError(
                f"{name_of(text)} has rotated vectors, and a mean of rotations is none: merge runs that have "
                "rotation=none, and rotate the result with embedtrain-rotate"
            )
        names = (name_of(text), source_of(text), folder, record)
        weights = {key: tensor.clone() for key, tensor in plain_weights(loaded).items()}
        every.append(Ingredient(*names, contract, weights, loaded.datasets))
        _check_contracts(every[0], every[-1])
    assert encoder is not None
    check_alike([one.name for one in every], [one.weights for one in every])
    start = _base(every, base, needed=needs_base, trust=trust_remote_code)
    facts = {} if start is None else _facts(every[0], base, start)
    return Ingredients(every, encoder, start, facts)


def _check_contracts(first: Ingredient, other: Ingredient) -> None:
    for field in Contract._fields:
        one, another = getattr(first.contract, field), getattr(other.contract, field)
        if field not in HISTORY and one != another:
            raise InputError(
                f"{field} is {one!r} in {first.name} and {another!r} in {other.name}: models that are merged "
                "must read texts and make vectors in the same way"
            )


def _base(
    every: Sequence[Ingredient], given: str | None, *, needed: bool, trust: bool
) -> dict[str, Tensor] | None:
    names, records = [one.name for one in every], [one.record for one in every]
    if given is not None:
        base = load_encoder(model_folder(given), trust_remote_code=trust)
        match_gates(base, every[0].contract.pooling)
        start = plain_weights(base)
    else:
        try:
            start = _recorded(names, records, every[0].contract.pooling, trust=trust)
        except InputError as error:
            if needed:
                raise
            log.info("the base is left out: %s", error)
            return None
    check_base(names, every[0].weights, start)
    return {key: start[key] for key in every[0].weights}


def _facts(first: Ingredient, given: str | None, start: Mapping[str, Tensor]) -> dict[str, str]:
    recorded = {} if first.record is None else first.record.base
    path = recorded.get("path", "") if given is None else source_of(given)
    return {"path": path, "weights": start_hash(start)}


def _recorded(
    names: Sequence[str], records: Sequence[Record | None], pooling: str, *, trust: bool
) -> dict[str, Tensor]:
    for name, record in zip(names, records, strict=True):
        if record is None:
            raise InputError(
                f"{name} is no run, so it does not say what it began with. Give that as base=FOLDER"
            )
    known = [record for record in records if record is not None]
    hashes = [recorded_hash(record) for record in known]
    for name, found in zip(names, hashes, strict=True):
        if found != hashes[0] and None not in (found, hashes[0]):
            raise InputError(
                f"{names[0]} and {name} began with different weights, so they have no base in common. Give "
                "one that both come from as base=FOLDER"
            )
    return plain_weights(recorded_base(names[0], known[0], pooling, trust_remote_code=trust))
