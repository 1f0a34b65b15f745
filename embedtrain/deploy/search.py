"""A search as a store is to run it: the sub-models of a cut or a funnel, and what decides their vectors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from embedtrain.deploy.graph import Graph
from embedtrain.escaping import markdown
from embedtrain.types import SubModel

Files = Mapping[str, str | bytes]  # content by path in the folder of a store
TOP = 10  # results of the queries in the files


class Search(NamedTuple):
    """All documents by the first of `cells`, the best `keep[j]` of them by `cells[j + 1]`; unit vectors."""

    name: str  # of the exported folder
    cells: tuple[SubModel, ...]  # one: a cut
    keep: tuple[int, ...] = ()
    prompts: Mapping[str, str] = {}  # by role
    default_prompt: bool = False  # whether sentence-transformers takes one for a role that has none
    max_length: int = 512
    needs_code: bool = False  # whether sentence-transformers loads the folder by `trust_remote_code` only
    scores: Mapping[str, float] = {}  # nDCG@10 measured here, by task
    graphs: Mapping[SubModel, Graph] = {}  # of the stores that compute embeddings themselves

    @property
    def widths(self) -> dict[int, int]:
        """Largest dim of each layer, the last cell's layer last: a vector holds the smaller ones."""
        last = self.cells[-1].layer
        layers = [*dict.fromkeys(cell.layer for cell in self.cells if cell.layer != last), last]
        return {layer: max(cell.dim for cell in self.cells if cell.layer == layer) for layer in layers}

    @property
    def whole(self) -> tuple[SubModel, ...]:
        """The vectors that hold those of all cells, one a layer."""
        return tuple(SubModel(layer, dim) for layer, dim in self.widths.items())

    def folder(self, layer: int) -> str:
        """Where the model of a layer is, seen from the folder of a store."""
        return "../.." if layer == self.cells[-1].layer else f"../{SubModel(layer, self.widths[layer])}"

    @property
    def stages(self) -> str:
        """In words: L2_D32, best 200 by L6_D384."""
        later = [f"the best {k} by {cell}" for k, cell in zip(self.keep, self.cells[1:], strict=True)]
        return ", ".join([f"all documents by {self.cells[0]}", *later])

    def prompt(self, role: str) -> str:
        """What comes before the text of a query or document."""
        return self.prompts.get(role, "")


def placeholder(cell: SubModel) -> str:
    """What stands in a JSON query for the vector of a query."""
    return f"<{cell}>"


def prompt_lines(search: Search) -> str:
    """The prompts for a README."""
    roles = [role for role in ("query", "document") if search.prompt(role)]
    said = [f"{markdown(repr(search.prompt(role)))} before a {role}" for role in roles]
    return f"Prompts: {', '.join(said)}." if said else "The model has no prompts."


def readme(search: Search, title: str, *parts: str) -> str:
    """README.md of a store: what it searches, then the parts."""
    head = f"Search: {search.stages}. Vectors have length one; the similarity is the cosine."
    return "\n\n".join([f"# {title}", head, prompt_lines(search), *parts]) + "\n"
