"""Whether a device computes what a CPU does."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator

import torch
import torch.nn.functional as F
import yaml
from sentence_transformers import SentenceTransformer
from torch import Tensor
from transformers.utils import is_flash_attn_2_available

from embedtrain.devices import exact_float32
from embedtrain.model.encoder import Encoder
from embedtrain.model.folder.export import load_encoder
from embedtrain.model.pooling import LatentAttention
from embedtrain.objective.losses.contrastive import InfoNCE
from embedtrain.objective.matryoshka import Objective
from embedtrain.objective.similarity.negatives import Negatives
from embedtrain.settings.component import Component
from embedtrain.settings.places import config_dir
from embedtrain.training.gradcache import GradCache
from embedtrain.types import Embeddings, Guide, Inputs, Links, SubModel, Weighted
from embedtrain.vectors.topk import Exact, in_memory, nearest
from gpu.setting import Measured, Setting, relative

WIDTH = 32
CHOSEN = tuple(Weighted(SubModel(layer, dim), 1.0) for layer in (1, 2) for dim in (8, 16, WIDTH))


def links_of(queries: int) -> Links:
    """Queries that each have a positive, a hard negative, a score and a teacher's scores."""
    number = torch.arange(queries)
    docs = queries + torch.arange(2 * queries)
    return Links(
        content_ids=torch.arange(3 * queries), query=number, docs=docs, owner=number.repeat(2),
        positive=number, known=docs[:queries], known_owner=number, task=torch.zeros_like(number), rows=number,
        scores=number / queries, teacher=torch.arange(2 * queries, 0, -1) / (2 * queries),
    )  # fmt: skip


def objectives() -> Iterator[tuple[str, Objective]]:
    """One for every loss and every distillation."""
    extra = {"num_layers": 2, "width": WIDTH, "guide_width": 8, "seed": 0}
    for group in ("loss", "distill"):
        for path in sorted(config_dir("conf").glob(f"{group}/*.yaml")):
            if path.stem in ("none", "weighted_sum"):
                continue
            node = yaml.safe_load(path.read_text("utf-8"))
            if path.stem == "espresso":
                node["compress_dim"] = 16
            part = Component.of(node, group).build(**extra)
            whole = Objective(part) if group == "loss" else Objective(InfoNCE(), part)
            yield f"{group}={path.stem}", whole


def losses(setting: Setting) -> list[Measured]:
    """Every loss and distillation in float32: the same value and gradient on both."""
    links, draw = links_of(setting.size(12, 256)), torch.Generator().manual_seed(0)
    values = torch.randn(2, len(links.content_ids), WIDTH, generator=draw)
    vectors = F.normalize(torch.randn(len(links.content_ids), 8, generator=draw), dim=-1)

    def run(objective: Objective, device: torch.device) -> tuple[Tensor, Tensor]:
        own = values.to(device).requires_grad_()
        guide = vectors.to(device)
        objective = copy.deepcopy(objective).to(device)
        given = Guide(guide[links.query.to(device)], guide[links.docs.to(device)])
        pairing = Negatives()(links, guide=given, device=device)
        texts = Embeddings(own, (1, 2))
        total = objective(texts.rows(links.query), texts.rows(links.docs), pairing, CHOSEN).total
        return total, torch.autograd.grad(total, own)[0]

    found = []
    with exact_float32():
        for name, objective in objectives():
            here, there = run(objective, setting.device), run(objective, torch.device("cpu"))
            found.append(Measured(f"{name}: loss", relative(here[0], there[0]), most=1e-5))
            found.append(Measured(f"{name}: gradient", relative(here[1], there[1]), most=1e-4))
    return found


def encoder_of(setting: Setting, implementation: str | None = None, **settings: object) -> Encoder:
    """The model on the device."""
    encoder = load_encoder(setting.model, attn_implementation=implementation, **settings)
    return encoder.to(setting.device)


def texts_of(setting: Setting, count: int) -> list[str]:
    """Some texts of many lengths."""
    rows = setting.rows().read_text("utf-8").splitlines()
    return [yaml.safe_load(row)["positive"] for row in rows[:count]]


def implementations() -> tuple[str, ...]:
    """Attention that this machine has; flash attention where its package is."""
    return ("sdpa", "eager", *["flash_attention_2"] * is_flash_attn_2_available())


def gradcache(setting: Setting) -> list[Measured]:
    """Dropout repeats in the second pass to the bit; without dropout the gradient is that of one pass."""
    found = []
    texts = texts_of(setting, setting.size(6, 64))
    alike = [" ".join(["cat"] * 8)] * len(texts)
    kinds = [torch.float32, torch.bfloat16, *[torch.float16] * setting.on_gpu]
    for implementation in implementations():
        encoder = encoder_of(setting, implementation)
        padded, whole = (
            encoder.process(some, "document").to_device(setting.device) for some in (texts, alike)
        )
        encoder.train()
        for dtype in kinds:
            for name, tokens in {"padded": padded, "unpadded": whole}.items():
                with _autocast(setting, dtype):
                    first, second = _passes(encoder, tokens)
                named = f"{implementation}, {str(dtype)[6:]}, {name}: both passes"
                found.append(Measured(named, float((first - second).abs().max()), most=0.0))
        encoder.eval()
        for dtype in kinds[:2]:
            with _autocast(setting, dtype):
                one, cached = (
                    _gradients(encoder, padded, cache) for cache in (None, GradCache(max_tokens=64))
                )
            found += _compared(f"{implementation}, {str(dtype)[6:]}", one, cached, dtype)
        missing = sum(item.grad is None for item in encoder.parameters() if item.requires_grad)
        found.append(Measured(f"{implementation}: parameters without gradient", missing, most=0))
    return found


def _autocast(setting: Setting, dtype: torch.dtype) -> torch.autocast:
    half = torch.bfloat16 if dtype == torch.float32 else dtype
    return torch.autocast(
        setting.device.type, dtype=half, enabled=dtype != torch.float32, cache_enabled=False
    )


def _passes(encoder: Encoder, tokens: Inputs) -> tuple[Tensor, Tensor]:
    """The vectors of a first pass without gradient, and of a second with it, from one seed."""
    torch.manual_seed(5)
    with torch.no_grad():
        first = encoder(tokens, (1, 2)).values
    torch.manual_seed(5)
    return first, encoder(tokens, (1, 2)).values.detach()


def _compared(name: str, one: list[Tensor], cached: list[Tensor], dtype: torch.dtype) -> list[Measured]:
    """Gradients in chunks beside those of one pass: of all together, or in 16 bits the angle of each."""
    if dtype == torch.float32:
        change = relative(
            torch.cat([part.flatten() for part in cached]), torch.cat([part.flatten() for part in one])
        )
        return [Measured(f"{name}: gradient in chunks", change, most=1e-5)]
    size = max(float(part.norm()) for part in one)
    angles = [
        float(F.cosine_similarity(left.flatten().double(), right.flatten().double(), dim=0))
        for left, right in zip(cached, one, strict=True)
        if float(right.norm()) > 1e-3 * size  # a bias of keys has none but of rounding
    ]
    return [Measured(f"{name}: least cosine of a parameter's gradient", min(angles), least=0.999)]


def _gradients(encoder: Encoder, tokens: Inputs, cache: GradCache | None) -> list[Tensor]:
    """Of each parameter, of a loss of the whole batch."""
    encoder.zero_grad()

    def score(texts: Embeddings) -> Tensor:
        unit = F.normalize(texts.values, dim=-1)
        return (unit @ unit.transpose(1, 2)).square().sum()

    layers = (1, encoder.num_layers)
    with exact_float32():
        if cache is None:
            score(encoder(tokens, layers)).backward()
        else:
            cache(
                encoder, tokens, layers, score, owned=[], seed=lambda chunk: chunk,
                backward=lambda part: part.backward(),
            ).backward()  # fmt: skip
    return [item.grad.clone() for item in encoder.parameters() if item.grad is not None]


def packing(setting: Setting) -> list[Measured]:
    """Texts packed, and padded on either side, have the vectors that they have alone; probes pass."""
    found, texts = [], texts_of(setting, setting.size(6, 64))
    alone = encoder_of(setting)
    with exact_float32():
        expected = torch.cat([alone.encode([text], (1, 2)).values for text in texts], dim=1)
    layouts = {"right": {}, "left": {"padding_side": "left"}, "packed": {"packing": True}}
    for implementation in (name for name in implementations() if name != "eager"):
        for name, settings in layouts.items():
            encoder = encoder_of(setting, implementation, **settings)
            named = f"{implementation}, {name}"
            if implementation == "sdpa":
                with exact_float32():
                    change = relative(encoder.encode(texts, (1, 2)).values, expected)
                found.append(Measured(f"{named}, float32", change, most=1e-4))
            with _autocast(setting, torch.bfloat16):
                change = relative(encoder.encode(texts, (1, 2)).values, expected)
                encoder.backbone.check_attention()  # raises
                if name == "packed":
                    encoder.backbone.expect_packing()
            found.append(Measured(f"{named}, bfloat16", change, most=2e-2))
    return found


def latents(setting: Setting) -> list[Measured]:
    """Poolings with queries of their own, forward and backward, for any number of tokens and a single one."""
    found = []
    for rows, tokens in ((1, 7), (7, 3), (setting.size(9, 129), 1), (3, setting.size(9, 129))):
        draw = torch.Generator().manual_seed(rows)
        torch.manual_seed(0)
        pooling = LatentAttention(hidden_size=64, num_layers=1)
        states = torch.randn(rows, tokens, 64, generator=draw)
        results = []
        for device in (torch.device("cpu"), setting.device):
            own, given = copy.deepcopy(pooling).to(device), states.to(device).requires_grad_()
            mask = torch.ones(rows, tokens, dtype=torch.bool, device=device)
            with exact_float32():
                pooled = own([given], mask, 1)
                results.append((pooled, torch.autograd.grad(pooled.square().sum(), given)[0]))
        for what, here, there in zip(("vectors", "gradient"), results[1], results[0], strict=True):
            found.append(Measured(f"{rows} x {tokens}: {what}", relative(here, there), most=1e-4))
    return found


def encode(setting: Setting) -> list[Measured]:
    """Vectors beside the CPU's and in bfloat16, texts a second, and the exact search under TF32."""
    texts = texts_of(setting, setting.size(24, 2_000))
    cpu, here = encoder_of(setting._replace(device=torch.device("cpu"))), encoder_of(setting)
    layers = (here.num_layers,)
    few = texts[: setting.size(24, 200)]
    begun = time.perf_counter()
    expected = cpu.encode(few, layers).values[0]
    cpu_speed = len(few) / (time.perf_counter() - begun)
    vectors = here.encode(few, layers).values[0]
    found = [
        Measured(
            "cosine to the CPU, least", float(F.cosine_similarity(vectors, expected).min()), least=0.9999
        )
    ]
    with torch.autocast(setting.device.type, dtype=torch.bfloat16):
        half = here.encode(few, layers).values[0]
        begun = time.perf_counter()
        here.encode(texts, layers)
        speed = len(texts) / (time.perf_counter() - begun)
    found.append(
        Measured("cosine of bfloat16, least", float(F.cosine_similarity(half, expected).min()), least=0.999)
    )
    found.append(Measured("texts a second", speed))
    found += [_searched(setting, texts), _beside(setting, texts, speed)]
    found.append(Measured("times the CPU's", speed / cpu_speed, least=20.0 if setting.on_gpu else None))
    unit = F.normalize(expected, dim=-1).half().numpy()
    rows, banned = in_memory(unit), [torch.tensor([number]).numpy() for number in range(len(unit))]
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        picked = [
            nearest(unit, rows, banned, 5, Exact(rows, len(unit), device))
            for device in (setting.device, "cpu")
        ]
    finally:
        torch.set_float32_matmul_precision(before)
    other = int((picked[0].numbers != picked[1].numbers).sum())
    return [*found, Measured("documents mined otherwise than on the CPU", other, most=0)]


def _searched(setting: Setting, texts: list[str]) -> Measured:
    """How far nDCG@10 of a search in bfloat16 is from that in float32: each text by its first half."""
    texts = list(dict.fromkeys(texts))
    encoder = encoder_of(setting)
    layers, halves = (encoder.num_layers,), [text[: len(text) // 2] for text in texts]

    def score() -> float:
        docs, queries = (
            F.normalize(encoder.encode(some, layers).values[0], dim=-1) for some in (texts, halves)
        )
        similar = queries @ docs.T
        place = (similar > similar.diagonal()[:, None]).sum(1)  # how many are nearer than its own
        return float((1 / (2.0 + place).log2() * (place < 10)).mean())

    exact = score()
    with _autocast(setting, torch.bfloat16):
        change = abs(score() - exact)
    return Measured("nDCG@10 in bfloat16 beside float32", change, most=2e-3 if setting.on_gpu else None)


def _beside(setting: Setting, texts: list[str], speed: float) -> Measured:
    """Texts a second as a multiple of sentence-transformers', on texts of uneven lengths in bfloat16."""
    other = SentenceTransformer(setting.model, device=str(setting.device)).eval()
    with torch.autocast(setting.device.type, dtype=torch.bfloat16):
        other.encode(texts[:24], batch_size=128)
        begun = time.perf_counter()
        other.encode(texts, batch_size=128)
        theirs = len(texts) / (time.perf_counter() - begun)
    return Measured("times sentence-transformers'", speed / theirs, least=1.5 if setting.on_gpu else None)
