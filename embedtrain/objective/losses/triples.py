"""Losses of a query, its positive and the hard negatives it brought itself, any number of them.

In-batch negatives take no part. Letters: B queries, C documents, N hard negatives, E scored documents.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from embedtrain.objective.losses.pairs import Owned, brought, on_host, own_negatives, picked, there
from embedtrain.objective.schedule import Schedule, at
from embedtrain.objective.settings import above_zero, one_of
from embedtrain.objective.similarity.nested import Similarity
from embedtrain.types import Guide, InputError, Pairing

Distance = Literal["euclidean", "cosine"]
Teacher = Literal["labels", "guide"]


class Taught(NamedTuple):
    """Documents that a teacher judged, each with the query that brought it."""

    query: Tensor  # (E,) int64, 0..B-1
    doc: Tensor  # (E,) int64 column of the C documents
    score: Tensor  # (E,) float32
    queries: int = 0  # different ones


class Triplet(nn.Module):
    """The positive must be nearer than each own hard negative by a margin.

    mean over triples of max(0, dist(query, positive) - dist(query, negative) + margin). Negatives that a rule
    took out make no triple. Source: Schroff et al. 2015, 1503.03832, equation 1 without the squares, as
    sentence-transformers' TripletLoss.

    Euclidean distances are those of the raw prefixes: they grow with the norm the model emits and shrink with
    the dim, so one margin asks more of a short prefix. 1 - cosine means the same at every dim.
    """

    needs = frozenset({"negatives"})

    def __init__(self, margin: float | Schedule = 0.5, distance: Distance = "cosine") -> None:
        """Set the margin and what it is a margin of.

        Args:
            margin: above 0; of cosines at most 2 can be kept, of Euclidean distances 5 is usual.
            distance: "cosine" is 1 - cosine, "euclidean" of un-normalised vectors.

        Raises:
            InputError: on a margin that is not above 0 or another word.
        """
        super().__init__()
        self.margin = above_zero("margin", margin, 0.5)
        one_of("distance", distance, ("euclidean", "cosine"))
        self.distance = distance

    def pick(self, pairing: Pairing) -> Owned:
        """The negatives of the triples. Raises InputError if the batch has no hard negative."""
        return Owned(*there(pairing, *own_negatives("Triplet", pairing)))

    def forward(self, query: Tensor, docs: Tensor, pairing: Pairing, owned: Owned | None = None) -> Tensor:
        """The mean over the triples of the batch, a scalar >= 0; each triple counts once.

        As `Loss`; of the pairing it reads targets, owners and what the rules allow.

        Raises:
            InputError: if the batch has no hard negative.
        """
        owned = picked(self, query, docs, pairing) if owned is None else owned
        if len(owned.doc) == 0:  # the rules took all of them out
            return (query.sum() + docs.sum()) * 0
        near = self._distance(query, docs[pairing.target])[owned.query]  # (N,)
        far = self._distance(query[owned.query], docs[owned.doc])  # (N,)
        return F.relu(near - far + at(self.margin, pairing.step)).mean()

    def _distance(self, left: Tensor, right: Tensor) -> Tensor:
        if self.distance == "cosine":
            return 1 - F.cosine_similarity(left, right, dim=-1)
        # the gradient of this norm at 0 is 0, that of sqrt is not
        return cast(Tensor, torch.linalg.vector_norm(left - right, dim=-1))


class MarginMSE(nn.Module):
    """Learns a teacher's margin between the positive and each own hard negative.

    mean over negatives of ((s(q, p) - s(q, n)) - (t_p - t_n))², with t the teacher's scores. Negatives that
    either lack a score are left out; rules do not matter, the teacher has judged. Source: Hofstätter et al.
    2020, 2010.02666, section 3.2, as sentence-transformers' MarginMSELoss.

    Dot products see the raw norms, as teachers' margins of 5 or 10 need; those of a prefix are smaller, so
    short dims have to grow their norms. Cosines keep margins within ±2.
    """

    needs = frozenset({"negatives", "teacher"})

    def __init__(self, similarity: Similarity = "dot") -> None:
        """Set what the student's margins are of. Raises InputError for another word."""
        super().__init__()
        one_of("similarity", similarity, get_args(Similarity))
        self.similarity: Similarity = similarity

    def pick(self, pairing: Pairing) -> Taught:
        """The negatives with the teacher's margins as scores. Raises InputError if there is none."""
        teacher = _scores_of("MarginMSE", pairing)  # (C,)
        owned = brought(pairing)
        goal = teacher[on_host(pairing).target[owned.query]] - teacher[owned.doc]  # (N,)
        known = ~goal.isnan()
        if not known.any():
            raise _unscored("MarginMSE")
        query, doc, margin = there(pairing, owned.query[known], owned.doc[known], goal[known])
        return Taught(query, doc, margin)

    def forward(self, query: Tensor, docs: Tensor, pairing: Pairing, owned: Taught | None = None) -> Tensor:
        """The mean over the negatives the teacher scored, a scalar >= 0.

        As `Loss`; of the pairing it reads targets, owners and the teacher's scores.

        Raises:
            InputError: if no query has teacher scores of its positive and a negative.
        """
        owned = picked(self, query, docs, pairing) if owned is None else owned
        positive = _similar(self.similarity, query, docs[pairing.target])[owned.query]  # (N,)
        negative = _similar(self.similarity, query[owned.query], docs[owned.doc])  # (N,)
        return F.mse_loss(positive - negative, owned.score.to(positive.dtype))


class TeacherKL(nn.Module):
    """Learns a teacher's distribution over the positive and the own hard negatives of each query.

    temperature² · mean over queries of KL( softmax(t / teacher_temperature) || softmax(s / temperature) ),
    over the documents that have a teacher score; queries with fewer than two are left out, since a softmax
    over one is constant. Source: sentence-transformers' DistillKLDivLoss (Hinton et al. 2015, 1503.02531).

    Dot products see the raw norms: the sharpness of the student's softmax then grows with them and with the
    dim. Cosines want a temperature near 0.05.
    """

    def __init__(
        self,
        temperature: float | Schedule = 1.0,
        teacher_temperature: float | Schedule | None = None,
        similarity: Similarity = "dot",
        teacher: Teacher = "labels",
    ) -> None:
        """Set the temperatures and who teaches.

        Args:
            temperature: of the student, above 0; its square multiplies the loss.
            teacher_temperature: of the teacher, above 0; the student's when left out.
            similarity: "dot" of un-normalised vectors or "cosine".
            teacher: "labels" takes the teacher scores of the training rows; "guide" the cosines of the guide
                model, computed as training goes (a teacher_temperature near 0.05 suits these).

        Raises:
            InputError: on a temperature that is not above 0 or another word.
        """
        super().__init__()
        self.temperature = above_zero("temperature", temperature, 1)
        self.teacher_temperature = temperature
        if teacher_temperature is not None:
            self.teacher_temperature = above_zero("teacher_temperature", teacher_temperature, 1)
        one_of("similarity", similarity, get_args(Similarity))
        one_of("teacher", teacher, ("labels", "guide"))
        self.similarity: Similarity = similarity
        self.teacher: Teacher = teacher
        self.needs = frozenset({"negatives", "teacher" if teacher == "labels" else "guide"})

    def pick(self, pairing: Pairing) -> Taught:
        """Positives and own negatives with their scores. Raises InputError if no query has two."""
        owned, scores = self._taught(pairing)  # E documents
        count = torch.bincount(owned.query, minlength=len(pairing.target))  # (B,)
        used = count[owned.query] >= 2
        if not used.any():
            raise _unscored("TeacherKL")
        query, doc = there(pairing, owned.query[used], owned.doc[used])
        if scores is not None:
            (score,) = there(pairing, scores[used])
        else:
            guide = cast(Guide, pairing.guide)
            score = (guide.query[query] * guide.docs[doc]).sum(-1).detach()
        return Taught(query, doc, score, int((count >= 2).sum()))

    def forward(self, query: Tensor, docs: Tensor, pairing: Pairing, taught: Taught | None = None) -> Tensor:
        """The mean over queries with at least two scored documents, a scalar >= 0.

        As `Loss`; of the pairing it reads targets, owners, and the teacher's scores or the guide's vectors.

        Raises:
            InputError: if no query has two scored documents, or the guide is missing.
        """
        taught = picked(self, query, docs, pairing) if taught is None else taught
        student = _similar(self.similarity, query[taught.query], docs[taught.doc])  # (E,)
        temperature = at(self.temperature, pairing.step)
        target = taught.score.to(student.dtype) / at(self.teacher_temperature, pairing.step)
        wanted = grouped_log_softmax(target, taught.query, len(query))  # (E,)
        given = grouped_log_softmax(student / temperature, taught.query, len(query))  # (E,)
        divergence = (wanted.exp() * (wanted - given)).sum() / taught.queries
        return temperature**2 * divergence

    def _taught(self, pairing: Pairing) -> tuple[Owned, Tensor | None]:
        """Each query with its positive and own negatives, and the scores of the rows (E,), if these teach."""
        owned, target = brought(pairing), on_host(pairing).target
        owned = Owned(torch.cat([torch.arange(len(target)), owned.query]), torch.cat([target, owned.doc]))
        if self.teacher == "labels":
            scores = _scores_of("TeacherKL", pairing)[owned.doc]
            known = ~scores.isnan()
            return Owned(owned.query[known], owned.doc[known]), scores[known]
        if pairing.guide is None:
            raise InputError(
                'TeacherKL with teacher="guide" needs a guide model: name one by guide=..., or set '
                'teacher="labels"'
            )
        return owned, None


def grouped_log_softmax(values: Tensor, group: Tensor, groups: int) -> Tensor:
    """(E,) log-softmax of each value among those of its group (E,) in 0..groups-1."""
    highest = values.new_full((groups,), -torch.inf)
    highest = highest.scatter_reduce(0, group, values.detach(), "amax")
    shifted = values - highest[group]
    total = values.new_zeros(groups).index_add(0, group, shifted.exp())
    return shifted - total[group].log()


def _similar(similarity: Similarity, left: Tensor, right: Tensor) -> Tensor:
    """(n,) of vectors (n, d)."""
    return F.cosine_similarity(left, right, dim=-1) if similarity == "cosine" else (left * right).sum(-1)


def _scores_of(loss: str, pairing: Pairing) -> Tensor:
    """(C,) of the host."""
    scores = on_host(pairing).teacher
    if scores is None:
        raise _unscored(loss)
    return scores


def _unscored(loss: str) -> InputError:
    return InputError(
        f"{loss} needs a teacher's scores of positive and hard negatives, and no row of this batch has them: "
        'add "teacher_scores" (of the positive, then of each negative) to the training rows'
    )
