"""The texts of a request, dealt to the ranks of a command that `torchrun` started.

The contract: all ranks ask for the same texts in the same order, up to the point where each has every vector
it will need. A rank that asks for something else stops them all with an error instead of mixing vectors.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from embedtrain.ranks import everyone, world_size


def share_of(lengths: Sequence[int], ranks: int, rank: int) -> list[int]:
    """Numbers of the texts that a rank encodes, ascending.

    Dealt longest first, back and forth (1 2 3 3 2 1), so that counts differ by at most one and the sums of
    lengths by at most the longest.
    """
    order = sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))
    turn = 2 * ranks
    return sorted(
        row for place, row in enumerate(order) if min(place % turn, turn - 1 - place % turn) == rank
    )


def check_agreement(keys: Sequence[bytes]) -> None:
    """Nothing, if all ranks ask for the same texts in the same order.

    Raises:
        RuntimeError: saying what each rank asked for.
    """
    if world_size() == 1:
        return
    asked = everyone((len(keys), hashlib.blake2b(b"".join(keys), digest_size=8).hexdigest()))
    if len(set(asked)) > 1:
        told = ", ".join(f"rank {rank}: {count} texts ({name})" for rank, (count, name) in enumerate(asked))
        raise RuntimeError(
            f"ranks ask for different texts: {told}. All must take the same tasks, and the first cell of "
            "each, in the same order, from the same data"
        )
