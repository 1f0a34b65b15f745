"""Makers of pairs by what their papers say, on documents that one can read."""

import math
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from embedtrain.making.corpus import Links, RepresentativeWords, Translations
from embedtrain.making.documents import Document, links, paragraphs, passages, sections, sentences, words_of
from embedtrain.making.maker import Pair, made
from embedtrain.making.spans import BodyFirst, Heading, InverseCloze, Neighbours, Title
from embedtrain.types import InputError

TEXT = """# Cats

The cat sleeps in a house. It eats fish. See [the dog](dog.md) too.

## Food

Cats like fish. They like [[Bird|birds]] no less! Do they? Yes.

```
# no heading. No sentence.
```

## Empty

## Life

A cat lives 15 years. Some live longer.
"""
CAT = Document(TEXT, "Cats", "pets/cat.md", "pets/cat.md")
DOG = Document(
    "The dog runs by the river.\n\nIt eats meat. A dog barks.", "Dog", "pets/dog.md", "pets/dog.md"
)
BIRD = Document("A bird sings in the tree. It flies. Rain wets it.", "Bird", "bird.md", "bird.md")
CORPUS = [CAT, DOG, BIRD]
EVERY = {
    "inverse_cloze": InverseCloze,
    "body_first": BodyFirst,
    "neighbours": lambda: Neighbours(words=6),
    "title": Title,
    "heading": lambda: Heading(least=1),
    "links": lambda: Links(least=1),
    "representative_words": lambda: RepresentativeWords(common=0.5),
}


def of(maker, documents=CORPUS, seed=0):
    maker.learn(documents)
    return {one.document.name: one.pairs for one in made(maker, documents, seed)}


def test_a_document_has_sections_paragraphs_and_sentences():
    assert [section.heading for section in sections(CAT)] == ["Cats", "Food", "Life"]
    assert paragraphs(CAT)[0] == "The cat sleeps in a house. It eats fish. See the dog too."
    assert sentences(paragraphs(CAT)[1]) == [
        "Cats like fish.",
        "They like birds no less!",
        "Do they?",
        "Yes.",
    ]
    assert sentences("3.5 cats, e.g. mine, eat.") == ["3.5 cats, e.g. mine, eat."]
    assert sentences("cats, e.g. mine, eat . they sleep. do they?") == [
        "cats, e.g. mine, eat .", "they sleep.", "do they?",
    ]  # fmt: skip
    assert sentences("القطة نائمة. هل تأكل؟ نعم.") == ["القطة نائمة.", "هل تأكل؟", "نعم."]
    assert sentences("猫は魚が好き。犬は肉。") == ["猫は魚が好き。", "犬は肉。"]
    found = [(link.target, link.paragraph[:9]) for link in links(CAT)]
    assert found == [("dog.md", "The cat s"), ("Bird", "Cats like")]


def test_passages_hold_all_sentences_in_runs_that_cross_no_heading():
    runs = passages(CAT, 8)
    assert [sentence for run in runs for sentence in run] == [
        sentence for part in paragraphs(CAT) for sentence in sentences(part)
    ]
    assert all(len(run) == 1 or len(words_of(" ".join(run))) <= 8 for run in runs)


def test_an_inverse_cloze_takes_a_sentence_out_of_its_passage():
    texts = [" ".join(run) for run in passages(CAT, 150)]
    for seed in range(20):
        for query, positive in of(InverseCloze(per_document=9, keep=0.0), [CAT], seed)["pets/cat.md"]:
            (whole,) = [text for text in texts if query in text]
            assert positive == whole.replace(query, "").replace("  ", " ").strip()
    stays = [
        query in positive
        for seed in range(300)
        for query, positive in of(InverseCloze(keep=0.3), [BIRD], seed)["bird.md"]
    ]
    assert sum(stays) / len(stays) == pytest.approx(0.3, abs=0.1)


def test_body_first_asks_with_the_beginning_for_the_rest():
    first, *rest = [" ".join(run) for run in passages(CAT, 150)]
    pairs = of(BodyFirst(per_document=9), [CAT])["pets/cat.md"]
    assert {positive for _, positive in pairs} == set(rest)
    assert all(query in first for query, _ in pairs)
    assert of(BodyFirst(), [BIRD])["bird.md"] == []


def test_neighbours_follow_each_other():
    texts = [" ".join(run) for run in passages(CAT, 6)]
    pairs = of(Neighbours(per_document=99, words=6), [CAT])["pets/cat.md"]
    assert pairs == [Pair(*both) for both in pairwise(texts)]


def test_titles_and_headings_ask_for_what_they_name():
    assert of(Title())["pets/dog.md"] == [
        Pair("Dog", "The dog runs by the river. It eats meat. A dog barks.")
    ]
    assert of(Title(words=6))["pets/dog.md"] == [Pair("Dog", "The dog runs by the river.")]
    assert of(Title(), [DOG._replace(title="")])["pets/dog.md"] == []
    found = dict(of(Heading(least=1))["pets/cat.md"])
    assert found["Cats: Life"] == "A cat lives 15 years. Some live longer."
    assert "Cats" in found, "its own title is not put before it"
    assert "Cats: Life" not in dict(of(Heading(least=9))["pets/cat.md"])


def test_a_link_pairs_its_paragraph_with_the_beginning_of_what_it_leads_to():
    pairs = of(Links(least=1))["pets/cat.md"]
    assert set(pairs) <= {
        Pair("The dog runs by the river.", paragraphs(CAT)[0]),
        *(Pair(sentence, paragraphs(CAT)[1]) for sentence in sentences(BIRD.text)),
    }
    assert len(pairs) == 2, "a path beside the document, and a title"
    with pytest.raises(InputError, match="none of the 2 documents links to another one"):
        Links().learn([DOG, BIRD])


@pytest.mark.parametrize(
    "target", ["Dog", "dog", "pets/dog.md", "./dog", "DOG.html", "dog.md#food", "/pets/dog.md"]
)
def test_names_of_links_are_found(target):
    linking = Document(f"Here is [one]({target}).", "Cat", "pets/cat.md", "c")
    assert of(Links(least=1), [linking, DOG])["pets/cat.md"]


def test_representative_words_are_the_likelier_of_two_sets():
    maker = RepresentativeWords(per_document=40, length=2.0, common=0.5)
    pairs = of(maker)["pets/cat.md"]
    counts, *others = (Counter(words_of(" ".join(paragraphs(document)))) for document in CORPUS)
    total = sum(others, counts)
    prior = total["fish"] / total.total()
    expected = (counts["fish"] + 2000 * prior) / (counts.total() + 2000)
    assert maker.chance("fish", counts) == pytest.approx(expected)
    assert all(set(query.split()) <= counts.keys() for query, _ in pairs)
    assert not any({"a", "it"} & set(query.split()) for query, _ in pairs), "in more than half the documents"
    lengths = [len(query.split()) for query, _ in pairs]
    assert 1 <= min(lengths) < max(lengths)
    likely = np.mean([np.mean([math.log(maker.chance(w, counts)) for w in q.split()]) for q, _ in pairs])
    known = [word for word in counts if word not in maker._left_out and not word.isdigit()]
    assert likely > np.mean([math.log(maker.chance(word, counts)) for word in known])


def test_translations_go_both_ways():
    text, pair = Document("a cat", "", "", "x:1", "eine Katze"), Pair("a cat", "eine Katze")
    assert of(Translations(), [text, BIRD])[""] == [pair, Pair("eine Katze", "a cat")]
    assert of(Translations(both=False), [text])[""] == [pair]
    with pytest.raises(InputError, match="needs rows with text and translation"):
        Translations().learn([BIRD])


@pytest.mark.parametrize("name", EVERY)
def test_pairs_depend_on_content_and_seed_and_not_on_order(name):
    first, again = of(EVERY[name]()), of(EVERY[name](), CORPUS[::-1])
    assert first == again
    assert any(first.values())
    others = [of(EVERY[name](), seed=seed) for seed in range(1, 9)]
    fixed = ("title", "heading")  # nothing is drawn of documents that are this short
    assert any(other != first for other in others) or name in fixed
    for pairs in first.values():
        assert all(query.strip() == query != positive == positive.strip() for query, positive in pairs)
        assert all(words_of(query) and words_of(positive) for query, positive in pairs)


def test_equal_pairs_are_made_once_and_counted():
    class Twice:
        name = "twice"

        def pairs(self, document, draw):
            return [Pair("a", "b"), Pair("a ", " b"), Pair("c", "c"), Pair("", "b"), Pair("d", "b")]

    one, other = made(Twice(), [DOG, BIRD], 0)
    assert (one.pairs, one.left_out) == ([Pair("a", "b"), Pair("d", "b")], 3)
    assert (other.pairs, other.left_out) == ([], 5)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("text", ["", " \n\n ", "word", "...", "# only\n\n## headings", "[a](b) [[c]]"])
def test_a_document_of_nothing_makes_nothing_or_little(name, text):
    maker = EVERY[name]()
    maker.learn(CORPUS)
    for one in made(maker, [Document(text, "", "", "x")], 0):
        assert len(one.pairs) <= 2


def test_makers_refuse_numbers_out_of_range():
    for build in (
        lambda: InverseCloze(keep=2),
        lambda: InverseCloze(words=0),
        lambda: BodyFirst(per_document=0),
        lambda: Neighbours(words=0),
        lambda: Title(words=0),
        lambda: Heading(least=0),
        lambda: Links(per_document=0),
        lambda: RepresentativeWords(common=0),
        lambda: RepresentativeWords(length=0),
    ):
        with pytest.raises(InputError):
            build()
