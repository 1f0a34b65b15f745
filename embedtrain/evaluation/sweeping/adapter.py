"""A cell of the grid as mteb sees a model. Importing this module imports mteb, which takes 4-5 seconds.

mteb drives: it asks a `ServedCell` for the vectors of texts, or for the best documents of queries, and
computes every metric itself. Scores and result files are what mteb gives for the physically cut model.

The prompt of a text is looked up among the model's as mteb does: NAME-query, NAME, TYPE-query, TYPE, query,
where NAME is the task's (STSBenchmark), TYPE its type (STS), and "document" may stand for "query".

Vectors are cut, normalised and only then quantised. Where mteb searches, documents are quantised and a query
is so only for the comparison of signs; where it compares texts with each other (STS, pairs, classification,
clustering), all are: int8 as the values that its codes mean, every binary dtype as +1 and -1.
"""

from __future__ import annotations

import re
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from mteb import TaskMetadata
from mteb.models import ModelMeta
from mteb.models.abs_encoder import AbsEncoder, get_prompt
from mteb.models.model_meta import ScoringFunction
from mteb.types import PromptType
from numpy.typing import NDArray
from torch import Tensor

from embedtrain.evaluation.mteb_private import Untyped, texts_of_table
from embedtrain.evaluation.vectors.bank import GridBank
from embedtrain.evaluation.vectors.search import Hits, rerank, search
from embedtrain.evaluation.vectors.streaming import Asked, Documents, search_all
from embedtrain.types import Cell, Role, SubModel
from embedtrain.vectors.dtypes import cosine, quantized, ranges_of, signs, signs_cosine, through_int8
from embedtrain.vectors.store import key_of


class Serving(NamedTuple):
    """How the vectors of every cell are made from the model's."""

    normalize: Literal["post", "pre"] = "post"  # after the cut; before it alone, as mteb's `embed_dim` does
    rescore_multiplier: int = 4  # times the asked documents that signs preselect, to be ranked again


AS_CUT = Serving()
_SAMPLED = 500  # documents that tell how much of a large corpus the store already has


class ServedCell(AbsEncoder):
    """The view (layer, dim, dtype) of a bank, as an mteb encoder that also searches.

    Vectors are truncated, THEN normalised. mteb's own truncation (`embed_dim`) does not normalise again,
    which costs its classifiers up to 11 points; `Serving(normalize="pre")` does as mteb. What was done
    is among the experiment settings of a truncated cell. The full float32 cell has no experiment
    settings and is at mteb's standard path.

    The ranges of int8 are those of the corpus where there is one, else of the first texts of the task and
    its subset (the left column of pairs, the training texts of a classification).
    """

    def __init__(self, bank: GridBank, cell: Cell, meta: ModelMeta, serving: Serving = AS_CUT) -> None:
        self.bank = bank
        self.cell = cell
        self.serving = serving
        self.mteb_model_meta: ModelMeta = meta
        self._corpus: Any = None
        self._ranges: dict[tuple[str, str], Tensor] = {}  # (task, subset) -> (2, dim)

    def encode(
        self,
        inputs: Untyped,
        *,
        task_metadata: TaskMetadata,
        hf_subset: str = "default",
        prompt_type: PromptType | None = None,
        **_: Untyped,
    ) -> NDArray[np.float32]:
        """The vectors (M, dim) of the texts of a data loader, in its order."""
        vectors = self._unit(list(inputs.dataset["text"][:]), task_metadata, prompt_type)
        if self.cell.dtype == "float32" or (self.cell.dtype == "int8" and prompt_type == PromptType.query):
            return vectors.numpy()
        if self.cell.dtype == "int8":
            where = (task_metadata.name, hf_subset)
            return through_int8(vectors, self._ranges.setdefault(where, ranges_of(vectors))).numpy()
        return signs(vectors).numpy()

    def index(self, corpus: Untyped, **_: Untyped) -> None:
        """Keeps the corpus that `search` will search."""
        self._corpus = corpus

    def search(
        self,
        queries: Untyped,
        *,
        task_metadata: TaskMetadata,
        top_k: int,
        top_ranked: Untyped = None,
        **_: Untyped,
    ) -> dict[str, dict[str, float]]:
        """The best `top_k` documents of each query: {query id: {document id: similarity}}.

        With `top_ranked` (reranking) only the documents given for a query are its candidates. Similarities
        are cosines of what `encode` gives; with rescoring, of the float32 query and the kept document.
        """
        query_ids = list(queries["id"][:])
        texts_of_queries = texts_of_table(queries, "query")
        if top_ranked is None and not self._fits(task_metadata):
            return self._streamed(query_ids, texts_of_queries, task_metadata, top_k)
        ids, texts = self.bank.corpus(self._corpus, ids_and_texts)
        unit = self._unit(texts, task_metadata, PromptType.document)  # (N, dim)
        docs = quantized(ids, unit, self.cell.dtype, self.serving.rescore_multiplier)
        asked = self._unit(texts_of_queries, task_metadata, PromptType.query)  # (Q, dim)
        if top_ranked is not None:
            return rerank(query_ids, asked, docs, top_ranked, top_k)
        return search(query_ids, asked, docs, top_k)

    def similarity(self, embeddings1: Untyped, embeddings2: Untyped) -> Tensor:
        """(M, N) cosines. mteb's would move them to a GPU, and compile, where scores are a CPU's matter."""
        measure = signs_cosine if self.cell.dtype.startswith("binary") else cosine
        left, right = (torch.as_tensor(given) for given in (embeddings1, embeddings2))
        return measure(*(rows if rows.dim() > 1 else rows[None] for rows in (left, right)))

    def similarity_pairwise(self, embeddings1: Untyped, embeddings2: Untyped) -> Tensor:
        """(M,) cosines of the rows of both."""
        left, right = torch.as_tensor(embeddings1), torch.as_tensor(embeddings2)
        return (F.normalize(left, dim=-1) * F.normalize(right, dim=-1)).sum(dim=-1)

    def _fits(self, task: TaskMetadata) -> bool:
        """Whether the vectors of the corpus are kept, and not searched as they pass."""
        count = len(self._corpus)

        def sample() -> list[bytes]:
            rows = range(0, count, max(1, count // _SAMPLED))
            how = self._prompted(task, PromptType.document)
            return [key_of(*how, text) for text in texts_of_table(self._corpus.select(rows), "document")]

        return self.bank.holds(self._corpus, count, sample)

    def _streamed(
        self,
        query_ids: list[str],
        texts: list[str],
        task: TaskMetadata,
        top_k: int,
    ) -> Hits:
        """`search` of a corpus that is not kept: the first cell searches for all."""
        # mteb gives each cell the same corpus, which the bank holds on to, but queries of its own
        where = (id(self._corpus), tuple(query_ids), tuple(texts), top_k)
        if where not in self.bank.searched:
            all_cells = self.bank.cells if self.cell in self.bank.cells else (self.cell,)
            cells = [ServedCell(self.bank, cell, self.mteb_model_meta, self.serving) for cell in all_cells]
            asked = Asked(
                query_ids,
                {one.cell: one._unit(texts, task, PromptType.query) for one in cells},
                top_k,
                cut_first=self.serving.normalize == "post",
                rescore_multiplier=self.serving.rescore_multiplier,
            )
            corpus = self._corpus

            def read(start: int, end: int) -> list[str]:
                return texts_of_table(corpus.select(range(start, end)), "document")

            documents = Documents(list(corpus["id"][:]), read, *self._prompted(task, PromptType.document))
            self.bank.searched[where] = search_all(self.bank, documents, asked)
        hits: Hits = self.bank.searched[where][self.cell]
        return hits

    def _prompted(self, task: TaskMetadata, prompt_type: PromptType | None) -> tuple[Role, str | None]:
        # Texts of symmetric tasks (STS, classification) have no role in mteb. Unless the model has a prompt
        # for the task or its type they are read as documents, to which most models give no prompt.
        role: Role = "query" if prompt_type == PromptType.query else "document"
        return role, get_prompt(dict(self.bank.encoder.prompts), task, prompt_type)

    def _unit(self, texts: list[str], task: TaskMetadata, prompt_type: PromptType | None) -> Tensor:
        """float32 vectors of the cell, (M, dim)."""
        role, prompt = self._prompted(task, prompt_type)
        if self.serving.normalize == "post":
            return self.bank.vectors(texts, role, self.cell.sub, prompt)
        whole = SubModel(self.cell.layer, self.bank.encoder.width)
        return self.bank.vectors(texts, role, whole, prompt)[:, : self.cell.dim].contiguous()


def model_meta(
    cell: Cell, serving: Serving = AS_CUT, *, num_layers: int, width: int, run: str, revision: str
) -> ModelMeta:
    """What mteb files a cell's results under: one model name and revision, one experiment per cell.

    `embed_dim` and `output_dtypes` are mteb's own names for these settings.
    """
    settings: dict[str, int | str] = {}
    if cell.sub != SubModel(num_layers, width):
        settings = {"embed_dim": cell.dim, "n_layers": cell.layer}
    if cell.dim < width:
        settings["normalize"] = serving.normalize
    if cell.dtype != "float32":
        settings["output_dtypes"] = cell.dtype.partition("_")[0]
    if cell.dtype.startswith("binary_"):
        settings["rescore"] = f"{serving.rescore_multiplier}_{'int8' if 'int8' in cell.dtype else 'binary'}"
    return ModelMeta.create_empty(
        {
            "name": "embedtrain/" + re.sub(r"[^\w.-]+", "_", run),
            "revision": revision,
            "embed_dim": cell.dim,
            "similarity_fn_name": ScoringFunction.COSINE,
            "framework": ["PyTorch"],
            "experiment_kwargs": settings or None,
        }
    )


def ids_and_texts(corpus: Untyped) -> tuple[list[str], list[str]]:
    """The documents of a corpus."""
    return list(corpus["id"][:]), texts_of_table(corpus, "document")
