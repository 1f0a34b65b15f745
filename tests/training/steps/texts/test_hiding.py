"""Which tokens are hidden: whole words, within budgets, never special ones; windows of long texts."""

import itertools

import numpy as np
import pytest
import torch
from golden import golden
from tokenizers import Tokenizer, pre_tokenizers, processors
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from embedtrain.data.order.draw import pick
from embedtrain.data.read.sources import Example
from embedtrain.model.folder.export import load_encoder
from embedtrain.model.inputs.tokenizer import TextTokenizer
from embedtrain.training.steps.retromae.collate import SeenCollate
from embedtrain.training.steps.smae.collate import TwiceCollate
from embedtrain.training.steps.texts.collate import MaskedCollate
from embedtrain.training.steps.texts.hiding import IGNORED, continuations, nested_words
from embedtrain.training.steps.texts.windows import read_texts
from embedtrain.training.steps.tsdae.collate import ThinnedCollate, following

CLS, SEP, MASK = 2, 3, 4


def rows_of(texts):
    return [pick(Example(text, (), (), None, "t", f"rows:{n}"), n) for n, text in enumerate(texts)]


def process_of(continues, longest):
    """A tokenizer whose words are numbers, those that continue a word written ##7; text is "7 ##8"."""
    names = [f"##{n}" if flag else str(n) for n, flag in enumerate(continues)]
    special = {0: "[PAD]", 1: "[UNK]", CLS: "[CLS]", SEP: "[SEP]", MASK: "[MASK]"}
    names = [special.get(n, name) for n, name in enumerate(names)]
    made = Tokenizer(WordLevel({name: n for n, name in enumerate(names)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    ends = [("[CLS]", CLS), ("[SEP]", SEP)]
    made.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    named = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, unk_token="[UNK]", **named)
    assert continuations(tokenizer).tolist() == list(continues)
    return TextTokenizer(tokenizer, longest), names


def check_hidden(raw, ids, labels, continues, share):
    """What the notes of the golden value say of one text; how many tokens were replaced in which way."""
    hidden = labels != IGNORED
    assert np.array_equal(labels[hidden], raw[hidden])
    assert np.array_equal(ids[~hidden], raw[~hidden])
    assert not np.isin(raw[hidden], [0, CLS, SEP, MASK]).any()
    real = raw != 0
    for place in range(1, real.sum() - 2):
        if continues[raw[place + 1]]:
            assert hidden[place] == hidden[place + 1], "words are hidden whole"
    assert hidden.sum() <= max(1, round(real.sum() * share))
    return np.array([hidden.sum(), (ids[hidden] == MASK).sum(), (ids[hidden] == raw[hidden]).sum()])


def test_a_batch_of_the_authors_is_as_the_notes_say():
    arrays, config = golden("smae_collator_invariants")
    arrays = {name: value.numpy() for name, value in arrays.items()}
    width = arrays["input_ids"].shape[1] - arrays["raw_ids"].shape[1]
    raw = np.pad(arrays["raw_ids"], [(0, 0), (0, width)])
    continues = arrays["is_continuation"]
    for kind, prefix in (("encoder", ""), ("decoder", "decoder_")):
        share = config[f"{kind}_mlm_probability"]
        for text, ids, labels in zip(
            raw, arrays[f"{prefix}input_ids"], arrays[f"{prefix}labels"], strict=True
        ):
            check_hidden(text, ids, labels, continues, share)


def test_our_batches_of_the_same_texts_are_too():
    arrays, config = golden("smae_collator_invariants")
    continues, raw = arrays["is_continuation"].numpy(), arrays["raw_ids"].numpy()
    process, names = process_of(continues, raw.shape[1])
    texts = [" ".join(names[n] for n in text if n not in (0, CLS, SEP)) for text in raw]
    shares = config["encoder_mlm_probability"], config["decoder_mlm_probability"]
    collate = TwiceCollate(process, seed=0, shares=shares)
    counts, apart = np.zeros((2, 3)), 0
    for step in range(300):
        batch = collate(rows_of(texts), step)
        raws = batch.masked.ids.numpy()
        assert np.array_equal(raws, raw[:, : raws.shape[1]])
        first, second = batch.masked.labels.numpy(), batch.decoder_labels.numpy()
        assert ((first == IGNORED) | (second == first)).all(), "the encoder's are among the decoder's"
        for place, (one, labels) in enumerate(((batch.inputs, first), (batch.decoder, second))):
            for text in range(len(raws)):
                counts[place] += check_hidden(
                    raws[text], one.values[text].numpy(), labels[text], continues, shares[place]
                )
        both = first != IGNORED
        apart += (batch.inputs.values.numpy()[both] != batch.decoder.values.numpy()[both]).sum()
    ordinary = 300 * (~np.isin(raw, [0, CLS, SEP])).sum()
    hidden, masked, same = counts.T
    assert 0.75 * shares[0] < hidden[0] / ordinary < shares[0] + 0.05
    assert 0.75 * shares[1] < hidden[1] / ordinary < shares[1] + 0.05
    np.testing.assert_allclose(masked / hidden, 0.8, atol=0.03)
    np.testing.assert_allclose(same / hidden, 0.1, atol=0.03)
    assert apart / hidden[0] == pytest.approx(1 - 0.8**2 - 0.1**2, abs=0.05), "replaced independently"


def test_budgets_hold_and_sets_are_nested():
    draw = np.random.default_rng(0)
    for _ in range(300):
        sizes = draw.integers(1, 5, size=draw.integers(0, 12))
        words = np.split(np.arange(sizes.sum()), sizes.cumsum()[:-1]) if len(sizes) else []
        few, more = nested_words(words, [0.2, 0.5], draw)
        assert set(few) <= set(more)
        for share, places in ((0.2, few), (0.5, more)):
            assert len(places) <= max(1, round(sizes.sum() * share))
            assert all(set(word) <= set(places) or not set(word) & set(places) for word in words)


@pytest.mark.parametrize(
    ("tokens", "continued"),
    [
        (["[CLS]", "cat", "##s", "##", "dog"], ["##s"]),
        (["<s>", "\u0120cat", "s", ",", "\u0120dog"], ["s"]),
        (["<s>", "\u2581cat", "s", "\u2581", "."], ["s"]),
        (["a", "b"], []),
    ],
)
def test_what_continues_a_word(tokens, continued):
    made = Tokenizer(WordLevel({name: n for n, name in enumerate(tokens)}, unk_token=tokens[0]))
    found = continuations(PreTrainedTokenizerFast(tokenizer_object=made))
    assert [name for name, flag in zip(tokens, found, strict=True) if flag] == continued


def test_a_place_of_the_decoder_sees_what_the_paper_says():
    arrays, config = golden("retromae_dupmae_tiny")
    continues, raw = arrays["is_continuation"].numpy(), arrays["raw_token_ids"].numpy()
    process, names = process_of(continues, config["max_seq_length"])
    texts = [" ".join(names[n] for n in text if n) for text in raw]
    shares = config["encoder_mlm_probability"], config["decoder_mlm_probability"]
    collate, closed, ordinary = SeenCollate(process, seed=0, shares=shares, step="retromae"), 0, 0
    check_seen(arrays["decoder_attention_mask"].bool(), arrays["decoder_input_ids"], continues)
    for step in range(50):
        batch = collate(rows_of(texts), step)
        assert batch.whole.values.shape[1] <= config["max_seq_length"]
        ids = batch.whole.values
        assert torch.equal(batch.ordinary, (ids != 0) & (ids != CLS) & (ids != SEP))
        closed += check_seen(batch.visible, ids, continues)
        ordinary += int((batch.ordinary.sum(1) ** 2).sum())
    assert 0.75 * shares[1] < closed / ordinary < shares[1] + 0.1


def check_seen(visible, ids, continues):
    """Hidden ordinary places, over all rows of ordinary places."""
    closed = 0
    for seen, text in zip(visible.numpy(), ids.numpy(), strict=True):
        real, special = text != 0, np.isin(text, [CLS, SEP])
        assert not seen[~real].any()
        assert not seen[:, ~real].any()
        assert not seen.diagonal().any()
        for place in np.flatnonzero(real):
            others = np.flatnonzero(real & (np.arange(len(text)) != place))
            assert seen[place, others[special[others]]].all()
            for left, right in itertools.pairwise(others):
                if right == left + 1 and continues[text[right]] and not special[left]:
                    assert seen[place, left] == seen[place, right]
            if not special[place]:
                closed += (~seen[place] & real & ~special).sum()
    return closed


def test_words_are_left_out_and_one_stays(tiny_bert, sentences):
    process = load_encoder(tiny_bert, pooling="mean", max_length=32).process
    collate = ThinnedCollate(process, seed=0, share=0.6)
    left, whole = 0, 0
    for step in range(100):
        batch = collate(rows_of(sentences), step)
        for text, thin in zip(batch.whole.values, batch.inputs.values, strict=True):
            full, some = text[text > 4].tolist(), thin[thin > 4].tolist()
            assert some
            walk = iter(full)
            assert all(token in walk for token in some), "in their order"
            left, whole = left + len(some), whole + len(full)
    assert left / whole == pytest.approx(0.4, abs=0.05)
    labels = following(batch.whole)
    assert torch.equal(
        labels[:, :-1][batch.whole.mask[:, 1:]], batch.whole.values[:, 1:][batch.whole.mask[:, 1:]]
    )
    assert (labels[:, -1] == IGNORED).all()


def test_windows_of_a_long_text_cover_it_and_are_a_function_of_seed_step_and_row(tiny_bert):
    process = load_encoder(tiny_bert, pooling="mean", max_length=16).process
    words = [f"{a}{b}" for a in "abcdefghij" for b in "klmnopqrst"]
    long = " ".join(words)
    rows = rows_of([long, "a cat sleeps"])
    seen, begins = set(), set()
    for step in range(200):
        one, short = read_texts(rows, step, process, seed=1).read
        assert one.length <= 16
        assert process.tokenizer.decode(short.ids, skip_special_tokens=True) == "a cat sleeps"
        text = process.tokenizer.decode(one.ids, skip_special_tokens=True).replace(" ##", "")
        found = text.split()
        assert found[0] in words, "it begins at a word"
        at = words.index(found[0])
        assert found[:-1] == words[at : at + len(found) - 1]
        seen |= set(found)
        begins.add(at)
    assert len(begins) > 40
    assert len(seen & set(words)) > 95
    again = read_texts(rows[:1], 199, process, seed=1).read[0]
    assert again == one
    others = (read_texts(rows[:1], 199, process, seed=2), read_texts(rows[:1], 198, process, seed=1))
    assert all(other.read[0] != one for other in others)


def test_a_huge_text_costs_a_window(tiny_bert, monkeypatch):
    process = load_encoder(tiny_bert, pooling="mean", max_length=16).process
    lengths, read = [], process.read
    monkeypatch.setattr(
        process, "read", lambda texts, *more: lengths.extend(map(len, texts)) or read(texts, *more)
    )
    for huge in ("a cat sleeps in the house " * 40_000, "\u4e00" * 1_000_000):
        (one,) = read_texts(rows_of([huge]), 0, process, seed=1).read
        assert one.length == 16
    assert max(lengths) <= 16 * 32


def test_a_tokenizer_of_words_hides_whole_ones(tiny_bert, sentences):
    """Unknown words are letters here, which are hidden together."""
    process = load_encoder(tiny_bert, pooling="mean", max_length=32).process
    collate = MaskedCollate(process, seed=0, share=0.3, step="masked_bow")
    plain = process(sentences, "document").values
    continues = continuations(process.tokenizer)
    for step in range(100):
        batch = collate(rows_of(sentences), step)
        assert torch.equal(batch.ids, plain)
        for text, ids, labels in zip(plain, batch.inputs.values, batch.labels, strict=True):
            check_hidden(text.numpy(), ids.numpy(), labels.numpy(), continues, 0.3)
