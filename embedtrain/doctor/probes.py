"""Whether the model does what its settings say: attention, padding, prompts, finite vectors, cuts.

Letters: M texts, T tokens, D width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from embedtrain.devices import exact_float32
from embedtrain.doctor.built_run import BuiltRun
from embedtrain.doctor.findings import Finding, Level, finding
from embedtrain.doctor.negatives import mean_cosine
from embedtrain.model.encoder import Encoder
from embedtrain.model.folder.export import load_encoder, save_encoder
from embedtrain.model.inputs.tokenizer import Read
from embedtrain.model.modes import evaluating
from embedtrain.model.pooling import pool_mask
from embedtrain.types import InputError, Inputs, Role, SubModel

CHECK = "model"
EXACT = 1e-5  # largest difference of unit vectors in float32
COARSE = 2e-2  # in 16 bits
ALIKE = 0.99  # mean cosine of different texts: they have collapsed
CLOSE = 0.95
ROLES: tuple[Role, ...] = ("query", "document")
TEXTS = 8  # of a padding probe
MOST_BYTES = 500 * 2**20  # of a model that is written out to try its cut


def probe_findings(run: BuiltRun, texts: Sequence[str], scratch: Path) -> Iterator[Finding]:
    """All probes, on different texts of the run; `scratch` is a folder to write a cut to."""
    encoder = run.encoder
    with evaluating(encoder), torch.no_grad(), exact_float32():
        yield attention_finding(encoder)
        yield padding_finding(encoder, texts)
        yield from prompt_findings(encoder, texts)
        yield from vector_findings(encoder, run.plan.sub_models, texts)
        yield cut_finding(encoder, min(run.plan.sub_models), texts, scratch)


def attention_finding(encoder: Encoder) -> Finding:
    """Whether attention is causal or bidirectional as the config says."""
    backbone = encoder.backbone
    try:
        backbone.check_attention()
    except InputError as error:
        return Finding(CHECK, "error", f"attention: {error}")
    return Finding(CHECK, "ok", f"attention is {backbone.attention}, with and without padding")


def padding_finding(encoder: Encoder, texts: Sequence[str]) -> Finding:
    """The largest change of a unit vector by padding on either side, or by the other texts of its batch."""
    read = sorted(encoder.process.read(list(texts[:TEXTS]), "document"), key=lambda item: len(item.ids))
    alone = torch.cat([_vectors(encoder, padded([item], len(item.ids))) for item in read])
    width = len(read[-1].ids)
    together = [_vectors(encoder, padded(read, width, left=left)) for left in (False, True)]
    return _change_finding(
        encoder,
        max(float((vectors - alone).abs().max()) for vectors in together),
        "padding on the left or right and other texts in the batch move an embedding by",
        "Its vectors depend on what else is in a batch: try backbone.attn_implementation=eager.",
    )


def prompt_findings(encoder: Encoder, texts: Sequence[str]) -> Iterator[Finding]:
    """For each role with a prompt: its tokens are pooled, or left out, as `include_prompt` says."""
    process = encoder.process
    for role in ROLES:
        prompt = process.prompts.get(role, "")
        if not prompt:
            continue
        tokens = process(list(texts[:TEXTS]), role).to_device(encoder.device)
        masked = bool((tokens.prompt_len > 0).all())
        moved = _prompt_states_move(encoder, tokens) if masked else True
        right = moved == process.include_prompt
        yield finding(
            CHECK,
            "ok" if right else "error",
            f"the {role} prompt is {'pooled' if moved else 'left out of pooling'}, "
            f"include_prompt is {str(process.include_prompt).lower()}",
            "Vectors would differ from those of the model in use: set include_prompt.",
        )


def vector_findings(
    encoder: Encoder, sub_models: Sequence[SubModel], texts: Sequence[str]
) -> Iterator[Finding]:
    """Whether vectors are finite, and whether different texts have different ones."""
    layers = sorted({sub.layer for sub in sub_models})
    embeddings = encoder.encode(list(texts), layers)
    finite = embeddings.values.isfinite().flatten(1).all(1).tolist()
    broken = [layer for layer, good in zip(layers, finite, strict=True) if not good]
    if broken:
        yield Finding(
            CHECK,
            "error",
            f"embeddings after layers {broken} are not finite",
            "Load the backbone with dtype=float32; if it is that already, its weights are broken.",
        )
        return
    yield Finding(CHECK, "ok", f"embeddings of {len(texts)} texts are finite after layers {layers}")
    if len(texts) < 2:
        return
    cosines = {str(sub): mean_cosine(embeddings.raw(sub)) for sub in sub_models}
    name, most = max(cosines.items(), key=lambda item: item[1])
    level: Level = "warning" if most > ALIKE else "note" if most > CLOSE else "ok"
    yield finding(
        CHECK,
        level,
        f"different texts have a mean cosine of {most:.3f} at most, at {name}",
        "The vectors have nearly collapsed: another pooling or layer, or more warm-up.",
        mean_cosine=cosines,
    )


def cut_finding(encoder: Encoder, sub: SubModel, texts: Sequence[str], scratch: Path) -> Finding:
    """Whether the smallest sub-model, written out and read again, gives the vectors it is trained for."""
    size = sum(item.numel() * item.element_size() for item in encoder.parameters())
    if size > MOST_BYTES:
        return Finding(CHECK, "note", f"the cut {sub} was not written out to be tried: the model is large")
    some = list(texts[:TEXTS])
    here = encoder.encode(some, [sub.layer]).at(sub)
    trusted = encoder.backbone.code is not None  # by the user, for this run
    read = load_encoder(save_encoder(encoder, scratch / f"cut_{sub}", sub), trust_remote_code=trusted)
    there = F.normalize(read.encode(some, [sub.layer]).values[0], dim=-1)
    return _change_finding(
        encoder,
        float((here - there).abs().max()),
        f"the cut {sub}, written out and read again, differs by",
        "What is trained is not what would be shipped: do not train this model.",
    )


def padded(read: Sequence[Read], width: int, *, left: bool = False) -> Inputs:
    """Texts as tokens (M, width), their padding on the right or the left."""
    ids = torch.zeros(len(read), width, dtype=torch.int64)
    for row, item in zip(ids, read, strict=True):
        start = width - len(item.ids) if left else 0
        row[start : start + len(item.ids)] = torch.tensor(item.ids)
    counts = torch.tensor([[len(item.ids)] for item in read])
    columns = torch.arange(width)
    mask = columns >= width - counts if left else columns < counts
    return Inputs(ids, mask, torch.tensor([item.prompt_len for item in read]))


def _change_finding(encoder: Encoder, change: float, what: str, cure: str) -> Finding:
    """Whether unit vectors that should be equal are, but for rounding."""
    bound = EXACT if next(encoder.parameters()).dtype == torch.float32 else COARSE
    level: Level = "ok" if change <= bound else "error"
    return finding(CHECK, level, f"{what} {change:.1e} at most", cure, largest_change=change, bound=bound)


@torch.no_grad()
def _vectors(encoder: Encoder, tokens: Inputs) -> Tensor:
    """Unit vectors of the whole model, (M, D), on the CPU."""
    here = tokens.to_device(encoder.device)
    values = encoder(here, [encoder.num_layers]).values[0]
    return F.normalize(values.float(), dim=-1).cpu()


def _prompt_states_move(encoder: Encoder, tokens: Inputs) -> bool:
    """Whether the pooled vector moves when the states of the prompt's tokens do."""
    every = encoder.pooling.needs_all_layers
    layers = range(1, encoder.num_layers + 1) if every else [encoder.num_layers]
    states = encoder.backbone(tokens, list(layers))
    pooled = pool_mask(tokens.mask, tokens.prompt_len)  # (M, T)
    hidden = (tokens.mask & ~pooled)[..., None]
    changed = [torch.where(hidden, state + 1.0, state) for state in states]
    before = encoder.pooling(states, pooled, encoder.num_layers)
    return not torch.equal(before, encoder.pooling(changed, pooled, encoder.num_layers))
