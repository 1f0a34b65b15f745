import pytest

from embedtrain.data.definitions import clean, contains, pairs


@pytest.mark.parametrize(
    ("headword", "text", "expected"),
    [
        ("catarrh", "An inflammation of any membrane; as, catarrh of the bladder.",
         "An inflammation of any membrane."),
        ("morpheme", "the smallest unit{4} of meaning [Obs.]", "The smallest unit of meaning."),
        ("looking", "Fig.: The act of one who watches.", "The act of one who watches."),
        ("farrow", "To bring forth young; -- said only of swine.", "To bring forth young."),
        ("dote", "To be foolishly fond; -- with on or upon.", "To be foolishly fond."),
        ("tumor", "Hence, a swelling of the flesh. See Gland.", "A swelling of the flesh."),
        ("mover", "One who carries goods.", "One who carries goods."),
    ],
)  # fmt: skip
def test_definitions_lose_what_is_no_definition(headword, text, expected):
    assert clean(text, headword) == expected


@pytest.mark.parametrize(
    "text",
    [
        "See Under the great table.", "Same as the other word here.", "same as Another word here.",
        "imp. of Go and of others too.", "imp. & p. p. of Go and others.", "pl. of Goose and of others.",
        "p. p. of Take and of others.", "A combining form meaning a star.",
        "an obsolete spelling of gray wolf.", "Alt. of the other word here", "A vagabond.",
        "Unfathomableness immeasurable", "A " + "very " * 50 + "long text.",
        "A formula = x of something else", "The broken (bracket of a text", "The cafés of the large cities",
        "A zebra is an animal with stripes.", "Of or like the zebras of the plain.",
    ],
)  # fmt: skip
def test_references_stubs_debris_and_the_headword_itself_are_left_out(text):
    assert clean(text, "zebra") is None


@pytest.mark.parametrize(
    ("text", "headword", "expected"),
    [
        ("In a mourning manner.", "mourningly", True),
        ("The act of inhabiting.", "inhabitation", True),
        ("To loose from a fastening.", "unfasten", True),
        ("One who acts.", "act", True),
        ("A thing that was actually there.", "act", False),
        ("MAKING noise", "make", True),
        ("Of hands close to hands.", "hand-to-hand", True),
        ("A large striped cat.", "tiger", False),
    ],
)
def test_words_akin_to_the_headword_say_it(text, headword, expected):
    assert contains(text, headword) is expected


def entry(*texts, kind="n."):
    return {"pos": [{"part_of_speech": kind, "definitions": [{"text": text} for text in texts]}]}


def test_definitions_of_two_headwords_are_left_out_of_both():
    found = pairs(
        {
            "tiger": entry(
                "A large striped cat of Asia.",
                "A large striped cat of Asia.",
                "A fierce and bloodthirsty person.",
            ),
            "felid": entry("a large, striped cat of Asia"),
            "went": entry("To have moved from a place.", kind="imp."),
            "3d": entry("Having the three dimensions of space."),
        }
    )
    assert found == {"tiger": ["A fierce and bloodthirsty person."]}
