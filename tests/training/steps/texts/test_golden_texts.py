"""SMAE, RetroMAE and DupMAE against the authors' code: losses, parts and every stored gradient."""

import string

import pytest
import torch
from golden import FOLDER, golden
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

from embedtrain.model.backbone.backbone import Backbone
from embedtrain.model.encoder import Encoder
from embedtrain.model.inputs.tokenizer import TextTokenizer
from embedtrain.model.pooling import Cls
from embedtrain.objective.plan import FixedPairs
from embedtrain.training.steps.protocol import Context
from embedtrain.training.steps.retromae.collate import Seen
from embedtrain.training.steps.retromae.step import Retro, largest_logits
from embedtrain.training.steps.smae.collate import TwiceMasked
from embedtrain.training.steps.smae.step import AutoEncoding, Smae
from embedtrain.training.steps.texts.bag import bag_of
from embedtrain.training.steps.texts.collate import MaskedBatch
from embedtrain.training.steps.texts.step import TextStep
from embedtrain.types import Inputs, SubModel

CLOSE = {"rtol": 1e-9, "atol": 1e-11}
DECODER = {  # names of BERT's layer in ours
    "attention.self.": "", "attention.output.dense": "out", "attention.output.LayerNorm": "norm",
    "intermediate.dense": "up", "output.dense": "down", "output.LayerNorm": "last_norm",
}  # fmt: skip


def cases(pattern, but="-"):
    """All golden values of a kind."""
    return sorted(path.stem for path in FOLDER.glob(f"{pattern}.npz") if but not in path.stem)


def tokenizer_of(size):
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    names += [f"{letter}{n}" for n in range(1 + size // 26) for letter in string.ascii_lowercase]
    model = WordLevel({name: number for number, name in enumerate(names[:size])}, unk_token="[UNK]")
    named = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(model), unk_token="[UNK]", **named)


def encoder_of(arrays, config, folder):
    """The masked-language model of a case, saved and loaded as an encoder that pools its first token."""
    table = arrays["w/bert.embeddings.position_embeddings.weight"]
    bert = BertConfig(
        vocab_size=config["vocab"],
        hidden_size=config["hidden"],
        num_attention_heads=config["heads"],
        num_hidden_layers=config["layers"],
        intermediate_size=config["intermediate"],
        hidden_act=config.get("hidden_act", "gelu"),
        layer_norm_eps=config.get("layer_norm_eps", 1e-12),
        hidden_dropout_prob=config["dropout"],
        attention_probs_dropout_prob=config["dropout"],
        max_position_embeddings=len(table),
        type_vocab_size=len(arrays["w/bert.embeddings.token_type_embeddings.weight"]),
    )
    model = BertForMaskedLM(bert).double()
    own = {name[2:]: value for name, value in arrays.items() if name.startswith("w/")}
    model.load_state_dict({name: own[name] for name in model.state_dict()})
    model.save_pretrained(folder)
    process = TextTokenizer(tokenizer_of(config["vocab"]), len(table))
    backbone = Backbone.load(folder, dtype=torch.float64)
    return Encoder(backbone, Cls(), process, origin=str(folder)).eval()


def inputs_of(ids, mask):
    return Inputs(ids, mask.bool(), torch.zeros(len(ids), dtype=torch.int64))


def loss_of(method, encoder, batch, chosen):
    """The loss and the means of its parts, each (loss of a sub-model in turn)."""
    reports = []
    context = Context(encoder, chosen, 0, reports.append, seed=int, backward=lambda _: None)
    loss = TextStep(method, "x").loss(batch, context)
    losses = method.losses(batch, encoder, [sub for sub, _ in chosen], 0.0)
    means = {}
    for one in losses:
        means.setdefault(one.name, []).append(one.total / max(int(one.of), 1))
    torch.testing.assert_close(reports[0].loss, loss.detach(), **CLOSE)
    return loss, {name: torch.stack(values) for name, values in means.items()}


def check_gradients(expected, parameters):
    assert expected
    found = {name: parameters[name].grad for name in expected}
    torch.testing.assert_close(found, expected, **CLOSE)


def of_bert(encoder, head):
    """Parameters of encoder and head by the names of BertForMaskedLM."""
    found = {f"bert.{name}": value for name, value in encoder.backbone.model.named_parameters()}
    found |= {name: value for name, value in head.transform.model.named_parameters() if "cls." in name}
    decoder = {f"cls.predictions.decoder.{name}": value for name, value in head.decoder.named_parameters()}
    assert head.decoder.bias is found["cls.predictions.bias"]
    assert head.decoder.weight is found["bert.embeddings.word_embeddings.weight"]
    return found | decoder


@pytest.mark.parametrize("case", cases("smae_*", but="collator"))
def test_smae_is_that_of_the_authors(case, tmp_path):
    arrays, config = golden(case)
    encoder = encoder_of(arrays, config, tmp_path)
    method = AutoEncoding(encoder, Smae(decoder_layers=config["decoder_layers"]), seed=0).eval()
    blocks = {
        name.removeprefix("w/decoder.bert.encoder.layer."): value
        for name, value in arrays.items()
        if name.startswith("w/decoder.bert.encoder.layer.")
    }
    method.blocks.load_state_dict(blocks)
    mask = arrays["attention_mask"]
    masked = MaskedBatch(
        inputs_of(arrays["input_ids"], mask), arrays["labels"], mask.bool(), torch.arange(len(mask))
    )
    decoder = inputs_of(arrays["decoder_input_ids"], mask)
    batch = TwiceMasked(masked, decoder, arrays["decoder_labels"])
    pairs = [list(pair) for pair in zip(config["layer_list"], config["dim_list"], strict=True)]
    chosen = FixedPairs(pairs, num_layers=config["layers"], width=config["hidden"])(0)
    assert [list(sub) for sub, _ in chosen] == pairs
    loss, means = loss_of(method, encoder, batch, chosen)
    torch.testing.assert_close(means["masked"], arrays["loss_mlm_pairs"], **CLOSE)
    torch.testing.assert_close(means["decoder"], arrays["loss_mae_pairs"], **CLOSE)
    torch.testing.assert_close(loss, arrays["loss_total"], **CLOSE)
    torch.testing.assert_close(means["masked"].mean(), arrays["loss_matryoshka_mlm_only"], **CLOSE)
    loss.backward()
    parameters = of_bert(encoder, method.head)
    own = {f"decoder.bert.encoder.layer.{name}": value for name, value in method.blocks.named_parameters()}
    gradients = {name[2:]: value for name, value in arrays.items() if name.startswith("g/")}
    shared = ("decoder.cls.", "decoder.bert.embeddings.")
    assert not any(name.startswith(shared) for name in gradients)
    assert own.keys() <= gradients.keys()
    check_gradients(gradients, parameters | own)


@pytest.mark.parametrize("case", cases("retromae_dupmae_*"))
@pytest.mark.parametrize("kind", ["retro", "dup"])
def test_enhanced_decoding_is_that_of_the_authors(case, kind, tmp_path):
    arrays, config = golden(case)
    encoder = encoder_of(arrays, config, tmp_path)
    bow = config["bow_loss_weight"] if kind == "dup" else None
    method = Retro(encoder, (0.3, 0.5), seed=0, step="retromae", bow=bow).eval()
    weights = {}
    for name, value in arrays.items():
        if name.startswith("w_dec/"):
            weights[ours(name.removeprefix("w_dec/"))] = value
    method.decoder.layer.load_state_dict(weights)
    mask, wanted = arrays["encoder_attention_mask"], arrays["decoder_labels"] >= 0
    masked = MaskedBatch(
        inputs_of(arrays["encoder_input_ids"], mask),
        arrays["encoder_labels"],
        wanted,
        torch.arange(len(mask)),
    )
    batch = Seen(masked, arrays["decoder_attention_mask"].bool())
    assert torch.equal(batch.whole.values, arrays["decoder_input_ids"])
    whole = SubModel(config["layers"], config["hidden"])
    chosen = FixedPairs([list(whole)], num_layers=whole.layer, width=whole.dim)(0)
    loss, means = loss_of(method, encoder, batch, chosen)
    torch.testing.assert_close(means["masked"][0], arrays["loss_encoder_mlm"], **CLOSE)
    torch.testing.assert_close(means["decoder"][0], arrays[f"loss_{kind}_decoder"], **CLOSE)
    torch.testing.assert_close(loss, arrays["loss_retromae" if kind == "retro" else "loss_dupmae"], **CLOSE)
    if kind == "dup":
        torch.testing.assert_close(means["bow"][0], arrays["loss_dup_bow"], **CLOSE)
        check_bag(arrays, method, encoder, batch)
    loss.backward()
    parameters = {f"lm.{name}": value for name, value in of_bert(encoder, method.head).items()}
    layer = method.decoder.layer
    gradients = {
        name.partition("/")[2]: value for name, value in arrays.items() if name.startswith(f"g_{kind}/")
    }
    parameters |= {
        name: layer.get_parameter(ours(name.removeprefix("c_head.")))
        for name in gradients
        if name.startswith("c_head.")
    }
    check_gradients(gradients, parameters)


def check_bag(arrays, method, encoder, batch):
    bag = bag_of(batch.masked.ids, batch.ordinary, method.head.vocabulary)
    torch.testing.assert_close(bag.double(), arrays["bag_word_weight"], rtol=0, atol=1e-7)
    (states,) = encoder.backbone(batch.inputs, (encoder.num_layers,))
    largest = largest_logits(method.head, states, states.shape[-1], batch.inputs.mask)
    torch.testing.assert_close(largest, arrays["ot_embedding"], **CLOSE)


def ours(name):
    """What we call a parameter of BERT's layer."""
    for theirs, mine in DECODER.items():
        if name.startswith(theirs):
            return mine + name.removeprefix(theirs)
    raise AssertionError(name)
