"""Which texts belong together: by text ids and labels, worked out for the rows asked for.

A query's RELATED texts are its own text and every positive labelled for it; queries of equal text and task
share their labels. A couple (query, related text) is a mark.

Letters: B queries, b some of them, C documents, U distinct texts of queries and documents, E marks,
S distinct related texts of the rows asked for, G distinct (query text, task), g those of the rows.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from embedtrain.transfers import moved_together
from embedtrain.types import Links


class Relevance:
    """The marks of one batch, with look-ups that never hold more than rows x (B + C) numbers.

    Which numbers there are is worked out on the host, the tables of rows and columns on a device.

    Args:
        links: the (gathered) batch.
        later_ids: (Q,) text ids of the documents after the batch's.
        device: where the tables are made; the rows that are asked for are of the host.
    """

    def __init__(self, links: Links, later_ids: Tensor, device: torch.device) -> None:
        self._device = device
        query_ids = links.content_ids[links.query]  # (B,)
        doc_ids = torch.cat([links.content_ids[links.docs], later_ids])  # (C,)
        queries = torch.arange(len(query_ids), device=query_ids.device)
        couples = torch.stack([query_ids, links.task])
        distinct, self.group = torch.unique(couples, dim=1, return_inverse=True)  # (2, G), (B,) in 0..G-1
        self.groups = distinct.shape[1]
        marks = torch.stack(
            [
                torch.cat([links.known, query_ids]),
                self.group[torch.cat([links.known_owner, queries])],
            ]
        )
        self.mark_id, self.mark_group = torch.unique(marks, dim=1).contiguous()  # (E,) text ids, (E,)
        self.ids, place = torch.unique(torch.cat([query_ids, doc_ids]), return_inverse=True)  # (U,) ascending
        self.query_text, self.doc_text = place[: len(query_ids)], place[len(query_ids) :]  # (B,), (C,) in U
        spot = torch.searchsorted(self.ids, self.mark_id).clamp(max=len(self.ids) - 1)
        here = self.ids[spot] == self.mark_id
        self.mark_text = torch.where(here, spot, -1)  # (E,) in U; -1: no text of this batch
        self._columns, self._groups = self._there(
            self.doc_text, self.group
        )  # of the documents, of the queries

    def docs(self, rows: Tensor) -> Tensor:
        """Where a document's text is related to the query of the row, (b, C) bool."""
        groups, back = torch.unique(self.group[rows], return_inverse=True)  # (g,), (b,)
        place = _places(groups, self.groups)[self.mark_group]  # (E,) in 0..g-1 or -1
        here = (place >= 0) & (self.mark_text >= 0)
        row, column, back = self._there(place[here], self.mark_text[here], back)
        table = torch.zeros(len(groups), len(self.ids), dtype=torch.bool, device=self._device)  # (g, U)
        table[row, column] = True
        return table[back][:, self._columns]

    def queries(self, rows: Tensor) -> Tensor:
        """Where two queries have a related text in common, (b, B) bool: True at the row's own query."""
        groups, back = torch.unique(self.group[rows], return_inverse=True)  # (g,), (b,)
        place = _places(groups, self.groups)[self.mark_group]  # (E,)
        ids, column = torch.unique(self.mark_id[place >= 0], return_inverse=True)  # (S,)
        spot = torch.searchsorted(ids, self.mark_id).clamp(max=len(ids) - 1)  # (E,)
        shared = (ids[spot] == self.mark_id).nonzero()[:, 0]  # all marks on those texts
        row, column, group, spot, back = self._there(
            place[place >= 0], column, self.mark_group[shared], spot[shared], back
        )
        table = torch.zeros(len(groups), len(ids), dtype=torch.bool, device=self._device)  # (g, S)
        table[row, column] = True
        common = torch.zeros(len(groups), self.groups, dtype=torch.float32, device=self._device)  # (g, G)
        for begin in range(0, len(group), max(len(self.group), 1)):
            piece = slice(begin, begin + max(len(self.group), 1))
            common.index_add_(1, group[piece], table[:, spot[piece]].float())
        return (common > 0)[back][:, self._groups]

    def queries_of(self, docs: Tensor) -> Tensor:
        """Where the text of a document (b,) is related to a query, (b, B) bool."""
        texts, back = torch.unique(self.doc_text[docs], return_inverse=True)  # (t,), (b,)
        known = self.mark_text >= 0
        place = torch.full_like(self.mark_text, -1)
        place[known] = _places(texts, len(self.ids))[self.mark_text[known]]  # (E,) in 0..t-1 or -1
        here = place >= 0
        row, column, back = self._there(place[here], self.mark_group[here], back)
        table = torch.zeros(len(texts), self.groups, dtype=torch.bool, device=self._device)  # (t, G)
        table[row, column] = True
        return table[back][:, self._groups]

    def _there(self, *numbers: Tensor) -> list[Tensor]:
        return [cast(Tensor, part) for part in moved_together(numbers, self._device)]


def _places(chosen: Tensor, count: int) -> Tensor:
    """(count,) position of each number in `chosen`, -1 where it is not there."""
    places = torch.full((count,), -1, dtype=torch.int64, device=chosen.device)
    places[chosen] = torch.arange(len(chosen), device=chosen.device)
    return places
