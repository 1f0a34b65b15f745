"""The fields of training rows: a pair, its negatives and what belongs to them, or a text alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from embedtrain.data.read.fields import Check, any_text, documents, list_of, missing, number, passage, text
from embedtrain.data.read.forms import Reading, describe
from embedtrain.data.read.readings import reading_of
from embedtrain.data.read.unfolded import unfolded
from embedtrain.files.rows import nearest
from embedtrain.types import InputError

COLUMNS = (
    *("query", "positive", "positives", "score", "negative", "negatives", "teacher_scores", "instruction"),
    *("prompt", "task", "text"),
)
MUST_EXIST = {"query", "positive", "positives", "score", "text"}  # where `columns` names them
CLASSES = {"label", "labels", "is_duplicate"}  # may be numbers of classes
REMEMBERED = 1000  # sets of names; rows beyond are looked at anew
SHOWN = 5  # lines about the forms of a data set
numbers = list_of(number, "numbers", least=0)
Named = list[tuple[str, Any]]


class Fields(NamedTuple):
    """The checked fields of a row."""

    query: Any  # or the text of a row that is a text alone
    positives: tuple[Any, ...] = ()
    negatives: tuple[Any, ...] = ()
    score: float | None = None
    teacher: tuple[float, ...] = ()
    instruction: str | None = None
    prompt: str | None = None  # of the query
    document_prompt: str | None = None
    task: str | None = None


class TrainingRows:
    """The checked fields of each row of a data set, whatever its form (see `forms`).

    Args:
        columns: our field name -> the name it has in the rows.
        content: the check of queries and documents.
        say: is told once how the rows are read, and which fields are left alone.

    Raises:
        InputError: for a field that does not exist.
    """

    def __init__(
        self, columns: Mapping[str, str], content: Check = text, say: Callable[[str], object] = len
    ) -> None:
        for field in columns:
            if field not in COLUMNS:
                raise InputError(
                    f"columns: {field!r} is no field of a row.{nearest(field, list(COLUMNS))} "
                    f"Write columns={{field: name in your rows}}; the fields are {', '.join(COLUMNS)}."
                )
        self._columns, self._content, self._say = dict(columns), content, say
        self._readings: dict[tuple[str, ...], Reading] = {}
        self._first: Reading | None = None
        self._said: set[str] = set()

    def read(self, where: str, row: Mapping[str, Any]) -> Fields:
        """The fields of a row.

        Raises:
            InputError: naming the row and the field that is missing or wrong.
        """
        if self._content is text and not self._columns and (plain := unfolded(where, row)) is not None:
            row = plain.row
            self._tell(plain.said)
        names = tuple(row)
        reading = self._readings.get(names)
        if reading is None:
            reading = self._reading(where, row)
        if reading.kind != "pair":
            found = self._other(where, row, reading)
        else:
            found = self._pair(where, row, reading)
        if names not in self._readings and len(self._readings) < REMEMBERED:
            self._remember(names, reading, row)
        return found

    def _reading(self, where: str, row: Mapping[str, Any]) -> Reading:
        for field, name in self._columns.items():
            if name not in row and field in MUST_EXIST:
                raise missing(where, name, row, " Mend the names in columns (in training data.columns).")
        first = self._first
        if first is not None and first.guessed and row.keys() >= first.needed():
            return first._replace(
                scalars={field: name for field, name in first.scalars.items() if name in row},
                positives=tuple(name for name in first.positives if name in row),
                negatives=tuple(name for name in first.negatives if name in row),
            )
        guess = first is None and self._content is text
        return reading_of(where, row, self._columns, guess=guess)

    def _remember(self, names: tuple[str, ...], reading: Reading, row: Mapping[str, Any]) -> None:
        """Keep what a row was read as, now that it is a good one; tell it once."""
        self._readings[names] = reading
        self._first = self._first or reading
        if self._content is text and (said := describe(reading, row)):
            self._tell(said)

    def _tell(self, said: str) -> None:
        if said not in self._said and len(self._said) < SHOWN:
            self._said.add(said)
            self._say(said)

    def _other(self, where: str, row: Mapping[str, Any], reading: Reading) -> Fields:
        """A text alone, or a set of texts of one meaning."""
        task = _optional(text, where, "task", row, reading)
        name = reading.scalars["text" if reading.kind == "text" else "query"]
        if row[name] is None:
            raise missing(where, name, row)
        if reading.kind == "text":
            return Fields(self._one(where, name, row[name]), task=task)
        texts = list(dict.fromkeys(self._several(where, name, row[name])))
        if len(texts) < 2:
            raise InputError(
                f"{where}: {name!r} must hold two texts or more, it has {len(texts)}. Drop the row."
            )
        return Fields(texts[0], tuple(texts[1:]), task=task)

    def _pair(self, where: str, row: Mapping[str, Any], reading: Reading) -> Fields:
        name = reading.scalars["query"]
        query = row[name]
        if query is None:
            raise missing(where, name, row)
        positives = [(field, row[field]) for field in reading.positives if row[field] is not None]
        negatives = [(field, row[field]) for field in reading.negatives if row[field] is not None]
        if not positives:
            raise missing(where, reading.positives[0], row)
        prompt = document_prompt = instruction = None
        if self._content is text and not isinstance(query, str) and is_pair(query):
            instruction, query = query
            if not instruction or instruction[-1].isspace():  # it ends as a prompt does
                prompt, instruction = instruction, None
            document_prompt, positives, negatives = _instructed(where, positives, negatives)
        found = [one for field, value in positives for one in self._several(where, field, value)]
        others = [
            one for field, value in negatives for one in self._several(where, field, value, negative=True)
        ]
        query = self._one(where, name, query)
        if not found:
            raise InputError(f"{where}: 'positives' is an empty list. Give at least one, or drop the row.")
        if len(reading.scalars) == 1 and instruction is prompt is None:
            return Fields(query, *_distinct(where, found, others, ())[:2])
        score, teacher = None, self._teacher(where, row, reading)
        if reading.scalars.get("score") is not None:
            score, teacher = self._score(where, row, reading, len(found), len(others), teacher)
        documents = _distinct(where, found, others, teacher)
        if prompt is None:
            prompt = _optional(any_text, where, "prompt", row, reading)
        if instruction is None:
            instruction = _optional(any_text, where, "instruction", row, reading)
        task = _optional(text, where, "task", row, reading)
        return Fields(query, *documents[:2], score, documents[2], instruction, prompt, document_prompt, task)

    def _one(self, where: str, field: str, value: Any) -> Any:  # noqa: ANN401
        if type(value) is not str and isinstance(value, Mapping) and self._content is text:
            value = passage(where, field, value)
        return self._content(where, field, value)

    def _several(self, where: str, field: str, value: Any, *, negative: bool = False) -> list[Any]:  # noqa: ANN401
        """The documents of a field; None in the place of a negative without text."""
        if not isinstance(value, list | tuple):
            plain = type(value) is str or self._content is not text
            value = (value,) if plain else documents(value)
        return [
            None
            if negative and (one is None or (isinstance(one, str) and not one.strip()))
            else self._one(where, field, one)
            for one in value
        ]

    def _teacher(self, where: str, row: Mapping[str, Any], reading: Reading) -> list[float]:
        """The scores of a teacher: of each positive, then of each negative."""
        found: list[float] = []
        for field in ("teacher_scores", "pos_scores", "neg_scores"):
            name = reading.scalars.get(field)
            if name is not None and row[name] is not None:
                found += numbers(where, name, row[name])
        return found

    def _score(
        self,
        where: str,
        row: Mapping[str, Any],
        reading: Reading,
        positives: int,
        negatives: int,
        teacher: list[float],
    ) -> tuple[float | None, list[float]]:
        """The score of a pair, or what a list or a margin says of a teacher."""
        name = reading.scalars["score"]
        value = row[name]
        if value is None or teacher:
            return None, teacher
        if isinstance(value, list | tuple):
            listed = numbers(where, name, value)
            if len(listed) == positives + negatives > 1:
                return None, listed
            if positives == 1 and len(listed) == negatives:
                return None, [0.0, *(-margin for margin in listed)]
            raise InputError(
                f"{where}: {name!r} has {len(listed)} numbers for {positives} positives and {negatives} "
                "negatives. Give each document a score, or each negative the margin of the positive over it."
            )
        if name in CLASSES and name not in self._columns.values() and not negatives:
            value = _label(where, name, value, reading)
        found = number(where, name, value)
        if (positives, negatives) == (1, 1):
            return None, [found, 0.0]  # a margin: the positive's score above that of the negative
        if positives != 1 or negatives:
            raise InputError(
                f"{where}: a scored row is one pair, this one has {positives} positives and {negatives} "
                "negatives. Drop the score or write one row a pair."
            )
        return found, []


def is_pair(value: object) -> bool:
    """Whether a value is an instruction and a text."""
    return (
        isinstance(value, list | tuple) and len(value) == 2 and all(isinstance(part, str) for part in value)
    )


def _label(where: str, name: str, value: object, reading: Reading) -> object:
    """A label of a pair as its score: 0 or 1, or a number with a point."""
    query, positive = reading.scalars["query"], reading.positives[0]
    if isinstance(value, bool):
        return float(value)
    if query.lower() == "premise" or ("." not in str(value) and str(value).strip() not in ("0", "1")):
        pair = f"data.columns={{query: {query}, positive: {positive}"
        raise InputError(
            f"{where}: {name!r} is {str(value)[:60]!r}: a class, or how alike the texts are? If it is a "
            f"degree, say '{pair}, score: {name}}}'. If it is a class, keep the pairs that belong "
            f"together, and leave it out with '{pair}}}'."
        )
    return value


def _distinct(
    where: str, positives: list[Any], negatives: list[Any], teacher: Sequence[float]
) -> tuple[tuple[Any, ...], tuple[Any, ...], tuple[float, ...]]:
    """Each document once, without empty negatives, and the teacher's scores of those that stay."""
    if not teacher:
        others = dict.fromkeys(negatives)
        others.pop(None, None)
        return tuple(dict.fromkeys(positives)), tuple(others), ()
    if len(teacher) != len(positives) + len(negatives):
        raise InputError(
            f"{where}: 'teacher_scores' has {len(teacher)} numbers for "
            f"{len(positives) + len(negatives)} documents. Give one for each positive and each negative."
        )
    mine: dict[Any, float] = {}
    for document, score in zip(positives, teacher, strict=False):
        mine.setdefault(document, score)
    theirs: dict[Any, float] = {}
    for document, score in zip(negatives, teacher[len(positives) :], strict=True):
        if document is not None:
            theirs.setdefault(document, score)
    return tuple(mine), tuple(theirs), (*mine.values(), *theirs.values())


def _instructed(where: str, positives: Named, negatives: Named) -> tuple[str | None, Named, Named]:
    """The prompt of documents that are pairs of an instruction and a text, and the documents without it."""
    prompts: dict[str, None] = {}

    def bare(field: str, value: Any) -> Any:  # noqa: ANN401
        pairs = [value] if is_pair(value) else value
        if not isinstance(pairs, list | tuple) or not all(map(is_pair, pairs)):
            raise InputError(
                f"{where}: {field!r} must be [instruction, text] or a list of such, as the query is."
            )
        prompts.update(dict.fromkeys(_document_prompt(pair[0]) for pair in pairs))
        return [pair[1] for pair in pairs]

    rid = [[(field, bare(field, value)) for field, value in part] for part in (positives, negatives)]
    if len(prompts) > 1:
        raise InputError(
            f"{where}: the documents have {len(prompts)} instructions, and those of a row share one. "
            "Write a row for each instruction."
        )
    return next(iter(prompts), None), rid[0], rid[1]


def _document_prompt(instruction: str) -> str:
    return instruction if not instruction or instruction[-1:].isspace() else f"{instruction} "


def _optional(check: Check, where: str, field: str, row: Mapping[str, Any], reading: Reading) -> Any:  # noqa: ANN401
    name = reading.scalars.get(field)
    return None if name is None or row[name] is None else check(where, name, row[name])
