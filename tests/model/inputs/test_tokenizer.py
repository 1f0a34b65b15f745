import pickle
from functools import partial

import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, ByT5Tokenizer, CanineTokenizer, PreTrainedTokenizerFast

from embedtrain.model.inputs.special_tokens import with_end_token, with_pad_token
from embedtrain.model.inputs.tokenizer import TextTokenizer
from embedtrain.types import InputError

CORPUS = [
    "query: a cat sleeps in the house",
    "Instruct: find it\nQuery: the dog runs",
    "passage: hello world",
] * 4
SPECIAL = ["<unk>", "<s>", "</s>", "<pad>"]
START = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
BYTES = pre_tokenizers.ByteLevel.alphabet()


def trained(model, trainer, normalizer=None, pre_tokenizer=None, processor=None):
    tokenizer = Tokenizer(model)
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    if pre_tokenizer is not None:
        tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.train_from_iterator(CORPUS, trainer(special_tokens=SPECIAL, show_progress=False))
    if processor is not None:
        tokenizer.post_processor = processor
    return tokenizer


def byte_level(processor):
    trainer = partial(trainers.BpeTrainer, vocab_size=400, initial_alphabet=BYTES)
    spaces = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return trained(models.BPE(), trainer, pre_tokenizer=spaces, processor=processor)


def unigram(pre_tokenizer, processor):
    trainer = partial(trainers.UnigramTrainer, vocab_size=80, unk_token="<unk>")
    return trained(models.Unigram(), trainer, normalizers.NFKC(), pre_tokenizer, processor)


def old_llama():
    trainer = partial(trainers.BpeTrainer, vocab_size=200)
    spaces = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return trained(models.BPE(unk_token="<unk>", byte_fallback=True), trainer, spaces, processor=START)


KINDS = {
    "bytes, spaces trimmed": lambda: byte_level(
        processors.Sequence([processors.ByteLevel(trim_offsets=True), START])
    ),
    "bytes, spaces kept": lambda: byte_level(processors.ByteLevel(trim_offsets=False)),
    "bytes, no processor": lambda: byte_level(None),
    "roberta": lambda: byte_level(processors.RobertaProcessing(("</s>", 2), ("<s>", 1))),
    "metaspace": lambda: unigram(pre_tokenizers.Metaspace(), START),
    "one long word": old_llama,
}


@pytest.fixture(scope="module")
def kinds(tiny_bert):
    made = {
        name: PreTrainedTokenizerFast(
            tokenizer_object=make(), bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<pad>"
        )
        for name, make in KINDS.items()
    }
    return {**made, "wordpiece": AutoTokenizer.from_pretrained(tiny_bert)}


EVERY = [*KINDS, "wordpiece"]


def pieces(tokenizer, read):
    """The tokens that are skipped, and those that are pooled."""
    tokens = tokenizer.convert_ids_to_tokens(read.ids)
    return tokens[: read.prompt_len], tokens[read.prompt_len :]


@pytest.mark.parametrize("kind", EVERY)
@pytest.mark.parametrize("prompt", ["query: ", "query:", "Instruct: find it\nQuery: ", "a", "é ", "🙂", "  "])
@pytest.mark.parametrize("text", ["cat", " cat", "the cat sleeps", "é world", "\n\ncat 🙂", "123", "ing"])
def test_skipped_tokens_hold_no_text_and_pooled_ones_all_of_it(kinds, kind, prompt, text):
    tokenizer = kinds[kind]
    (read,) = TextTokenizer(tokenizer, 64, prompts={"query": prompt}, include_prompt=False).read(
        [text], "query"
    )
    whole = tokenizer(prompt + text, return_offsets_mapping=True, return_special_tokens_mask=True)
    assert read.ids == whole["input_ids"]
    held = [
        set() if special else {place for place in range(*span) if place >= len(prompt)}
        for span, special in zip(whole["offset_mapping"], whole["special_tokens_mask"], strict=True)
    ]
    visible = {len(prompt) + place for place, letter in enumerate(text) if not letter.isspace()}
    assert not set().union(*held[: read.prompt_len])
    assert visible <= set().union(*held[read.prompt_len :])
    assert held[read.prompt_len] or text[0].isspace()


@pytest.mark.parametrize(
    ("kind", "prompt", "text", "skipped", "first"),
    [
        ("bytes, spaces trimmed", "query: ", "cat", ["<s>", "query", ":"], "Ġcat"),
        ("bytes, spaces kept", "query: ", "cat", ["query", ":"], "Ġcat"),
        ("bytes, spaces trimmed", "query: ", "é", ["<s>", "query", ":", "Ġ"], "Ã"),
        ("bytes, spaces trimmed", "query:", " é", ["<s>", "query", ":"], "Ġ"),
        ("roberta", "query: ", "cat", ["<s>", "query", ":"], "Ġcat"),
        ("one long word", "query: ", "zzz", ["<s>", "▁query:▁"], "<unk>"),
        ("one long word", "query", ": zzz", ["<s>"], "▁query:▁"),
        ("wordpiece", "the: ", "cat", ["[CLS]", "the", ":"], "cat"),
        ("wordpiece", "c", "at", ["[CLS]"], "cat"),
    ],
)
def test_the_border_stands_where_a_reader_would_draw_it(kinds, kind, prompt, text, skipped, first):
    tokenizer = kinds[kind]
    read = TextTokenizer(tokenizer, 64, include_prompt=False).read([text], "query", [prompt])[0]
    before, after = pieces(tokenizer, read)
    assert (before, after[0]) == (skipped, first)


def test_prompt_alone_would_count_one_token_too_many(kinds):
    tokenizer = kinds["bytes, spaces kept"]
    read = TextTokenizer(tokenizer, 64, include_prompt=False).read(["cat"], "query", ["query: "])[0]
    assert len(tokenizer("query: ")["input_ids"]) == read.prompt_len + 1


def test_the_prompt_of_a_text_wins_over_the_prompt_of_its_role(kinds):
    plain = kinds["wordpiece"]
    process = TextTokenizer(plain, 64, prompts={"query": "the: ", "STS": "a: "}, include_prompt=False)
    texts = ["cat", "cat", "cat"]
    tokens = process(texts, "query", [None, "", "a big: "])
    assert tokens.prompt_len.tolist() == [3, 0, 4]
    for row, prompt in enumerate(["the: ", "", "a big: "]):
        assert tokens.values[row][tokens.mask[row]].tolist() == plain(prompt + "cat")["input_ids"]
    assert process(["cat"], "query").prompt_len.tolist() == [3]
    assert process(["cat"], "document").prompt_len.tolist() == [0]
    with pytest.raises(ValueError, match=r"is (shorter|longer) than"):
        process(texts, "query", ["one"])


def test_a_pooled_prompt_skips_nothing(kinds):
    for kind in EVERY:
        tokens = TextTokenizer(kinds[kind], 64, prompts={"query": "query: "})(["cat", "the dog"], "query")
        assert tokens.prompt_len.tolist() == [0, 0]


@pytest.mark.parametrize("append_eos", [False, True])
@pytest.mark.parametrize("kind", EVERY)
def test_an_empty_text_pools_its_end_token_or_else_everything(kinds, kind, append_eos):
    process = TextTokenizer(kinds[kind], 64, include_prompt=False, append_eos=append_eos)
    (read,) = process.read([""], "query", ["the dog"])
    skipped, pooled = pieces(process.tokenizer, read)
    ends = append_eos or kind in ("roberta", "wordpiece")
    assert bool(skipped) == ends
    assert (len(pooled) == 1) == ends


def test_a_text_that_the_tokenizer_drops_is_an_empty_one(kinds):
    process = TextTokenizer(kinds["wordpiece"], 64, include_prompt=False)
    assert process.read(["\x01"], "query", ["the: "]) == process.read([""], "query", ["the: "])


def test_a_text_without_tokens_is_read_as_padding(kinds):
    tokens = TextTokenizer(kinds["bytes, no processor"], 8, include_prompt=False)(["", "cat"], "query")
    assert tokens.values[0, 0] == kinds["bytes, no processor"].pad_token_id
    assert tokens.mask[0].tolist() == [True, *[False] * (tokens.values.shape[1] - 1)]


@pytest.mark.parametrize("kind", EVERY)
def test_a_prompt_that_leaves_no_room_is_named(kinds, kind):
    plain = kinds[kind]
    prompt = "the dog runs: "
    needed = len(plain(prompt.strip())["input_ids"])
    narrow = TextTokenizer(plain, needed, include_prompt=False)
    with pytest.raises(
        InputError, match=rf"max_length {needed} leaves no room .*'the dog runs: ', which has \d+ tokens"
    ):
        narrow(["a cat", "zzz 123"], "query", ["", prompt])
    assert narrow([""], "query", [prompt]).values.shape == (1, needed)
    TextTokenizer(plain, needed)(["zzz 123"], "query", [prompt])
    assert (
        TextTokenizer(plain, needed + 4, include_prompt=False)(["zzz 123"], "query", [prompt]).prompt_len > 0
    )


@pytest.mark.parametrize("side", ["right", "left"])
def test_padding_stands_on_its_side_and_hides_nothing(kinds, side, sentences, tmp_path):
    process = TextTokenizer(kinds["wordpiece"], 64, padding_side=side, include_prompt=False)
    prompts = ["the: " if row % 2 else "" for row in range(len(sentences))]
    tokens = process(sentences, "query", prompts)
    rows = process.read(sentences, "query", prompts)
    for ids, mask, row in zip(tokens.values, tokens.mask, rows, strict=True):
        assert ids[mask].tolist() == row.ids
        assert (ids[~mask] == process.tokenizer.pad_token_id).all()
        assert mask[-1 if side == "left" else 0]
        assert (mask.int().diff() == (1 if side == "left" else -1)).sum() == (not mask.all())
    assert tokens.prompt_len.tolist() == [row.prompt_len for row in rows]
    assert process([], "query").values.shape == (0, 0)
    assert process.tokenizer.padding_side == side
    process.tokenizer.save_pretrained(tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path).padding_side == side
    assert kinds["wordpiece"].padding_side == "right"
    with pytest.raises(InputError, match="padding_side must be right or left, got 'top'"):
        TextTokenizer(kinds["wordpiece"], 64, padding_side="top")


def test_a_worker_gets_the_same_tokenizer(kinds):
    options = {"include_prompt": False, "append_eos": True, "padding_side": "left"}
    for kind in EVERY:
        process = TextTokenizer(kinds[kind], 16, prompts={"query": "query: "}, **options)
        copied = pickle.loads(pickle.dumps(process))
        found, expected = copied(CORPUS[:3], "query"), process(CORPUS[:3], "query")
        for own, other in zip(found[:4], expected[:4], strict=True):
            assert torch.equal(torch.as_tensor(own), torch.as_tensor(other))


def test_slow_tokenizers_are_refused_only_where_offsets_are_needed():
    process = TextTokenizer(ByT5Tokenizer(), 32, include_prompt=False, append_eos=True)
    assert process(["ab"], "query").values.tolist() == [[100, 101, 1]]
    with pytest.raises(InputError, match=r"ByT5Tokenizer does not say which char.* include_prompt=true"):
        process(["ab"], "query", ["q: "])
    assert TextTokenizer(ByT5Tokenizer(), 32)(["b"], "query", ["a"]).values.tolist() == [[100, 101, 1]]


PROCESSORS = {
    "nothing": None,
    "start": START,
    "bytes": processors.ByteLevel(trim_offsets=False),
    "bytes, start": processors.Sequence([processors.ByteLevel(trim_offsets=True), START]),
    "roberta": processors.RobertaProcessing(("</s>", 2), ("<s>", 1)),
    "start and end": processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    ),
}


@pytest.mark.parametrize("name", PROCESSORS)
@pytest.mark.parametrize("kind", ["PreTrainedTokenizerFast", "LlamaTokenizer", "Qwen2Tokenizer"])
def test_the_end_token_stands_behind_every_text_also_after_saving(name, kind, tmp_path):
    import transformers

    def ids(tokenizer):
        return [tokenizer(text)["input_ids"] for text in CORPUS[:3]]

    backend = byte_level(PROCESSORS[name])
    words = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    words.save_pretrained(tmp_path / "plain")
    plain = getattr(transformers, kind).from_pretrained(tmp_path / "plain")
    before = ids(plain)
    ending = with_end_token(plain)
    expected = [row if row[-1] == 2 else [*row, 2] for row in before]
    assert (ids(ending), ids(plain)) == (expected, before)
    assert with_end_token(ending) is ending
    cut = ending(CORPUS[1], truncation=True, max_length=6)["input_ids"]
    assert cut == [*expected[1][:5], 2]
    ending.save_pretrained(tmp_path / "ending")
    again = AutoTokenizer.from_pretrained(tmp_path / "ending")
    assert ids(again) == expected
    assert again(CORPUS[1], truncation=True, max_length=6)["input_ids"] == cut


def test_a_start_token_that_the_settings_ask_for_stays(tmp_path):
    plain = PreTrainedTokenizerFast(
        tokenizer_object=byte_level(None), bos_token="<s>", eos_token="</s>",
        add_bos_token=True, add_eos_token=False,
    )  # fmt: skip
    ending = with_end_token(plain)
    assert ending("cat")["input_ids"] == [1, *plain("cat")["input_ids"][1:], 2]
    ending.save_pretrained(tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path)("cat")["input_ids"] == ending("cat")["input_ids"]


def test_pairs_of_texts_end_in_the_end_token_too():
    for name in ("nothing", "start", "bytes, start"):
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=byte_level(PROCESSORS[name]), eos_token="</s>")
        assert with_end_token(tokenizer)("a cat", "dog")["input_ids"] == [
            *tokenizer("a cat", "dog")["input_ids"], 2
        ]  # fmt: skip


def test_sep_ends_where_there_is_no_eos(tiny_bert):
    bert = AutoTokenizer.from_pretrained(tiny_bert)
    assert bert.eos_token is None
    assert with_end_token(bert) is bert
    bert.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A", special_tokens=[("[CLS]", bert.cls_token_id)]
    )
    assert with_end_token(bert)("cat")["input_ids"][-1] == bert.sep_token_id


def test_an_end_token_that_cannot_be_had_is_an_error(tiny_bert):
    with pytest.raises(InputError, match=r"this tokenizer has none: set eos_token in tokenizer_config\.json"):
        with_end_token(PreTrainedTokenizerFast(tokenizer_object=byte_level(None), bos_token="<s>"))
    slow = CanineTokenizer(eos_token="!")
    with pytest.raises(InputError, match="CanineTokenizer does not append its end token '!'"):
        with_end_token(slow)
    bert = AutoTokenizer.from_pretrained(tiny_bert)
    bert.eos_token = "[MASK]"
    bert.backend_tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    with pytest.raises(InputError, match=r"BertProcessing cannot append '\[MASK\]'"):
        with_end_token(bert)


def test_padding_falls_back_to_the_end_then_the_unknown_token(tmp_path):
    def bare(**tokens):
        return PreTrainedTokenizerFast(tokenizer_object=byte_level(None), **tokens)

    given = bare(eos_token="</s>", unk_token="<unk>")
    assert with_pad_token(given).pad_token == "</s>"
    assert given.pad_token is None
    assert with_pad_token(bare(unk_token="<unk>")).pad_token == "<unk>"
    padded = bare(pad_token="<pad>")
    assert with_pad_token(padded) is padded
    with_pad_token(given).save_pretrained(tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path).pad_token == "</s>"
    assert TextTokenizer(given, 8)(["a", "a cat"], "query").mask.tolist()[0].count(True) == 1
    with pytest.raises(InputError, match="no padding token, nor an end or unknown token"):
        TextTokenizer(bare(bos_token="<s>"), 8)
