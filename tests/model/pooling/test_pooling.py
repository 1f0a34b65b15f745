"""What holds for every pooling, and the names they are built by."""

import inspect
import subprocess
import sys

import pytest
import torch

from embedtrain.model.pooling import (
    POOLINGS,
    Cls,
    LastLayer,
    Mean,
    MultiLayer,
    Pooling,
    named_pooling,
    pool_mask,
    pooled_width,
    pooling_sources,
)
from embedtrain.types import InputError

LAYERS, WIDTH = 3, 8
SIZE = {"hidden_size": WIDTH, "num_layers": LAYERS}
LENGTHS = (3, 5, 1, 4)
VARIANTS = [
    ("mean", {}),
    ("cls", {}),
    ("weighted_mean", {}),
    ("eos", {}),
    ("max", {}),
    ("mean_sqrt_len", {}),
    ("concat", {}),
    ("concat", {"of": "eos+max+mean_sqrt_len"}),
    ("projected", {"pooling": "max"}),
    ("gated_mean", {}),
    ("latent_attention", {"latents": 5, "heads": 2, "head_width": 3}),
    ("latent_attention", {"shared": False}),
    ("last_layer", {"latents": 3}),
    ("last_layer", {"source": "last_token", "shared": False}),
    ("multi_layer", {"latents": 3, "heads": 4}),
    ("multi_layer", {"source": "last_token", "shared": False}),
]


def called(variant):
    name, settings = variant
    return "-".join([name, *map(str, settings.values())])


@pytest.fixture(params=VARIANTS, ids=called)
def pooling(request):
    name, settings = request.param
    torch.manual_seed(0)
    made = named_pooling(name, **SIZE, **settings).double()
    with torch.no_grad():
        for parameter in made.parameters():
            if not parameter.any():  # what begins at zero would hide what it does
                parameter.normal_()
    return made


@pytest.fixture
def texts():
    """States (LAYERS, n, WIDTH) of each text, without padding."""
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(LAYERS, n, WIDTH, generator=generator, dtype=torch.float64) for n in LENGTHS]


def padded(texts, length, side, fill=0.0, skip=0):
    """Hiddens, each (M, length, WIDTH), and the pool mask without the first `skip` tokens of each text."""
    states = torch.full((LAYERS, len(texts), length, WIDTH), fill, dtype=texts[0].dtype)
    mask = torch.zeros(len(texts), length, dtype=torch.bool)
    for row, text in enumerate(texts):
        begin = 0 if side == "right" else length - text.shape[1]
        states[:, row, begin : begin + text.shape[1]] = text
        mask[row, begin : begin + text.shape[1]] = True
    return list(states), pool_mask(mask, torch.full((len(texts),), skip))


def pool(pooling, hiddens, mask, layer):
    return pooling(hiddens[:layer] if pooling.needs_all_layers else [hiddens[layer - 1]], mask, layer)


@pytest.mark.parametrize("layer", [1, LAYERS])
@pytest.mark.parametrize(("side", "length"), [("right", 5), ("right", 9), ("left", 5), ("left", 8)])
def test_padding_and_other_texts_change_nothing(pooling, texts, layer, side, length):
    together = pool(pooling, *padded(texts, length, side), layer)
    alone = [pool(pooling, *padded([text], text.shape[1], "right"), layer) for text in texts]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-10, atol=1e-10)
    assert together.shape == (len(texts), pooled_width(pooling, WIDTH))


@pytest.mark.parametrize("fill", [1e4, float("inf"), float("nan")])
def test_states_outside_the_mask_reach_neither_vector_nor_gradient(pooling, texts, fill):
    """A prompt token and the padding, in value and in gradient."""

    def run(fill):
        hiddens, mask = padded(texts[:2], 6, "left", fill, skip=1)
        states = torch.stack(hiddens)
        states[:, ~mask] = fill
        states.requires_grad_()
        pooling.zero_grad()
        vectors = pool(pooling, list(states), mask, LAYERS)
        (vectors * torch.arange(1, vectors.shape[1] + 1)).sum().backward()
        return [vectors.detach(), states.grad, *(p.grad for p in pooling.parameters() if p.grad is not None)]

    for clean, noisy in zip(run(0.0), run(fill), strict=True):
        assert torch.equal(clean, noisy)
    hidden_grad = run(fill)[1]
    assert torch.equal(hidden_grad[:, 0, :4], torch.zeros(LAYERS, 4, WIDTH, dtype=torch.float64))
    assert hidden_grad[-1, 0, 4:].abs().max() > 0


def test_a_text_without_pooled_tokens_gives_zeros_and_finite_gradients(pooling, texts):
    hiddens, mask = padded(texts, 5, "right")
    whole = pool(pooling, hiddens, mask, LAYERS)
    mask[1] = False
    states = torch.stack(hiddens).requires_grad_()
    vectors = pool(pooling, list(states), mask, LAYERS)
    assert not vectors[1].any()
    torch.testing.assert_close(vectors[[0, 2, 3]], whole[[0, 2, 3]], rtol=1e-10, atol=1e-10)
    vectors.sum().backward()
    assert torch.isfinite(states.grad).all()
    assert all(torch.isfinite(p.grad).all() for p in pooling.parameters() if p.grad is not None)


def test_vectors_are_float32_and_float64_is_kept(pooling, texts):
    hiddens, mask = padded(texts, 5, "right")
    exact = pool(pooling, hiddens, mask, LAYERS)
    assert exact.dtype == torch.float64
    single = [hidden.float() for hidden in hiddens]
    halves = [hidden.bfloat16() for hidden in hiddens]
    for dtype in (torch.float32, torch.bfloat16):  # of the weights; bf16-true training has the latter
        module = pooling.to(dtype)
        for states in (single, halves):
            plain = pool(module, states, mask, LAYERS)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                mixed = pool(module, states, mask, LAYERS)
            assert plain.dtype == mixed.dtype == torch.float32
            assert torch.equal(plain, mixed)
            torch.testing.assert_close(plain.double(), exact, rtol=0.1, atol=0.1)
        assert pool(module, hiddens, mask, LAYERS).dtype == torch.float64


@pytest.mark.parametrize("layer", [1, 2, LAYERS])
def test_a_cut_gives_the_same_vectors_with_what_the_smaller_model_has(pooling, texts, layer):
    pooling.eval()
    before = torch.random.get_rng_state()
    smaller = pooling.cut(layer)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not smaller.training
    hiddens, mask = padded(texts, 5, "left")
    for lower in range(1, layer + 1):
        assert torch.equal(pool(smaller, hiddens, mask, lower), pool(pooling, hiddens, mask, lower))
    rebuilt = named_pooling(smaller.name, hidden_size=WIDTH, num_layers=layer, **smaller.settings()).double()
    rebuilt.load_state_dict(smaller.state_dict())
    assert torch.equal(pool(rebuilt, hiddens, mask, layer), pool(pooling, hiddens, mask, layer))
    if smaller is not pooling:
        theirs = {parameter.data_ptr() for parameter in pooling.parameters()}
        assert theirs.isdisjoint(parameter.data_ptr() for parameter in smaller.parameters())


def test_settings_rebuild_it_with_its_weights(pooling, texts):
    rebuilt = named_pooling(pooling.name, **SIZE, **pooling.settings()).double()
    assert rebuilt.settings() == pooling.settings()
    assert isinstance(rebuilt, Pooling)
    rebuilt.load_state_dict(pooling.state_dict())
    hiddens, mask = padded(texts, 5, "right")
    assert torch.equal(pool(rebuilt, hiddens, mask, 2), pool(pooling, hiddens, mask, 2))


def test_every_setting_is_stated():
    for kind in POOLINGS.values():
        keywords = {
            key for key, item in inspect.signature(kind).parameters.items() if item.kind is item.KEYWORD_ONLY
        }
        built = named_pooling(kind.name, **SIZE)
        assert set(built.settings()) == keywords - set(SIZE) - {"lr"}  # which decides no vector


def test_only_the_last_state_counts_unless_all_are_needed(pooling, texts):
    hiddens, mask = padded(texts, 5, "right")
    other = [torch.zeros_like(hiddens[0]), *hiddens[1:]]
    same = torch.equal(pooling(hiddens, mask, LAYERS), pooling(other, mask, LAYERS))
    assert same is not pooling.needs_all_layers
    assert pooling.needs_all_layers is isinstance(pooling, MultiLayer)


def test_needs_an_end_token_where_the_last_token_alone_is_looked_at(pooling):
    last = (
        "eos" in (pooling.name, *str(pooling.settings().get("of")).split("+"))
        or pooling.settings().get("source") == "last_token"
    )
    assert pooling.needs_eos is last


def test_poolings_by_name():
    assert isinstance(named_pooling("mean", **SIZE), Mean)
    assert isinstance(named_pooling("cls", **SIZE), Cls)
    assert named_pooling("multi_layer", **SIZE).sets.num_layers == LAYERS
    assert sorted(POOLINGS) == sorted(set(name for name, _ in VARIANTS))


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("maxx", {},
         r"pooling 'maxx' is not supported; supported are cls, concat, eos, gated_mean, last_layer, "),
        ("mean", {"heads": 2}, r"pooling 'mean' has no setting 'heads'; it has none"),
        ("last_layer", {"head": 2},
         r"no setting 'head'; it has head_width, heads, latent_scale, latents, shared"),
        ("latent_attention", {"num_layers": 2, "heads": 3},
         r"heads=3 do not divide the hidden width 8 of this"),
        ("latent_attention", {"heads": 0}, r"heads must be positive, got 0"),
        ("latent_attention", {"head_width": 0}, r"head_width must be positive, got 0"),
        ("latent_attention", {"latents": 0}, r"latents must be positive, got 0"),
        ("latent_attention", {"latents": "many"}, r"refuses its settings \{'latents': 'many'\}"),
        ("last_layer", {"source": "mean"},
         r"source must be one of tokens, all_positions, last_token, got 'mean'"),
        ("multi_layer", {"source": "tokens"}, r"source must be one of mean, last_token, got 'tokens'"),
        ("multi_layer", {"latent_scale": -1}, r"latent_scale must be 0 or more, got -1"),
        ("multi_layer", {"table_scale": float("nan")}, r"table_scale must be 0 or more, got nan"),
        ("multi_layer", {"num_layers": 0}, r"num_layers must be positive, got 0"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_with_the_cure(name, settings, message):
    with pytest.raises(InputError, match=message):
        named_pooling(name, **{**SIZE, **settings})


@pytest.mark.parametrize("name", ["latent_attention", "last_layer", "multi_layer"])
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("layer", [0, LAYERS + 1])
def test_layers_that_do_not_exist_are_refused(name, shared, layer):
    pooling = named_pooling(name, **SIZE, shared=shared)
    message = f"layer must be in 1..{LAYERS} for a pooling with parameters, got {layer}"
    with pytest.raises(ValueError, match=message):
        pooling([torch.zeros(1, 2, WIDTH)] * layer, torch.ones(1, 2, dtype=torch.bool), layer)
    with pytest.raises(ValueError, match=message):
        pooling.cut(layer)


def test_multi_layer_wants_all_states_up_to_the_layer():
    with pytest.raises(ValueError, match=r"at layer 2 takes the states after blocks 1\.\.2, got 1 of them"):
        named_pooling("multi_layer", **SIZE)([torch.zeros(1, 2, WIDTH)], torch.ones(1, 2).bool(), 2)


def test_all_positions_of_the_paper_depend_on_padding(texts):
    """What the default mends: design 4 of the paper attends to padding."""
    pooling = named_pooling("last_layer", **SIZE, source="all_positions").double()
    near, far = (pool(pooling, *padded(texts, length, "left"), LAYERS) for length in (5, 9))
    assert (near - far).abs().max() > 1e-3
    right = LastLayer(**SIZE, source="tokens").double()
    right.load_state_dict(pooling.state_dict())
    unpadded = padded([texts[1]], 5, "left")
    torch.testing.assert_close(pool(right, *unpadded, LAYERS), pool(pooling, *unpadded, LAYERS))


def test_the_pool_mask_leaves_prompt_tokens_out_on_either_side():
    mask = torch.tensor([[1, 1, 1, 0, 0], [0, 0, 1, 1, 1], [1, 1, 1, 1, 1]], dtype=torch.bool)
    expected = torch.tensor([[0, 0, 1, 0, 0], [0, 0, 0, 1, 1], [1, 1, 1, 1, 1]], dtype=torch.bool)
    assert torch.equal(pool_mask(mask, torch.tensor([2, 1, 0])), expected)


def test_the_sources_work_in_a_folder_of_their_own_without_embedtrain(tmp_path):
    folder = tmp_path / "shipped"
    folder.mkdir()
    for name, text in pooling_sources().items():
        (folder / name).write_text(text, "utf-8")
    (folder / "__init__.py").write_text("")
    check = (
        "import sys; before = set(sys.modules); import torch; known = set(sys.modules)\n"
        "from shipped.trainable import MultiLayer\nfrom shipped.latent_attention import LatentAttention\n"
        "from shipped.plain import Mean\n"
        "new = {name.split('.')[0] for name in set(sys.modules) - known} - set(sys.stdlib_module_names)\n"
        "assert new <= {'shipped', 'torch'}, new\n"
        "MultiLayer(hidden_size=8, num_layers=1)([torch.ones(1, 2, 8)], torch.ones(1, 2).bool(), 1)\n"
    )
    done = subprocess.run([sys.executable, "-c", check], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
