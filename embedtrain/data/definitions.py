"""Dictionary entries to clean (definition, headword) pairs that a reader could guess the headword from.

The source is GCIDE (Webster 1913 and later additions): half its senses are cross-references, word-formation
notes, or contain the headword. Rules are strict rather than fine; enough remains.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

SHORTEST, LONGEST, FEWEST_WORDS = 20, 200, 4

# Entries that are no words of their own: inflected forms, affixes, abbreviations.
NO_WORD = re.compile(r"imp\.|p\. ?p|p\. ?pr|pers\.|pret|pref|suff|comb|abbr|obs|compar|superl|contr|symbol")
HEADWORD = re.compile(r"[a-z]{3,}([ '-][a-z]+)*")

ENDING = re.compile(r"(?:ings?|ed|es|e|s|ers?|ors?|ly)$")

# What a definition is rid of: sense markers, notes in brackets, usage examples, remarks after it.
SENSE = re.compile(r"\{[^}]*\}|<[^>]*>")
NOTE = re.compile(
    r"\[[^\]]*\]|\((?:see|cf|as|fig|obs|also|called|usually|often|with|followed)\b[^)]*\)", re.IGNORECASE
)
EXAMPLE = re.compile(r"[;,:.]? (?:as|e\. ?g\.|for example|i\. ?e\.)[,:;] .*$", re.IGNORECASE)
REMARK = re.compile(
    r"-- ?(?:with (?:on|of|to|upon|in|for|from|at|into|over|out)\b|said\b|sometimes\b).*$|"
    r"(?:[;,.:]|--)\s*(?:--\s*)?(?:see|cf\.|compare|same as|called also|also called|also spelled|"
    r"also written|often called|opposed to|contrasted with|distinguished|contrary to|correlative to|"
    r"a synonym|used chiefly|used especially|used only|used with|said of|said chiefly|said especially|"
    r"usually|often|now|chiefly|written|spelled|applied|followed by|in distinction|in this sense|"
    r"abbreviated|formerly called)\b.*$",
    re.IGNORECASE,
)
LEAD = re.compile(
    r"^(?:(?-i:\([A-Z][a-z]{1,6}\.\)|[A-Z][a-z]{1,4}\.:)\s*|(?:hence|specifically|also|figuratively|especially|"
    r"formerly|originally|usually|literally)(?:, also)?[,:;] |fig\.?: ?|-- )+",
    re.IGNORECASE,
)

# What is no definition: references, inflected forms, formulas, broken text.
REFERENCE = re.compile(
    r"^(?:see|same|cf\.|compare|imp\b|p\.|pl\.|plural|plur\.|pres\.|pret\.|3d pers|past |present part|comp\.|"
    r"compar|superl|a\. ?& ?n|n\. ?& ?v|a\. from|of [A-Z][\w-]*[.,;]?(?: \w+\.)?$|from [A-Z]|alt\.|alternat|"
    r"var(?:iant|iety of spelling|\.)|another (?:form|name|spelling)|abbrev|contract|acronym|initialism|"
    r"obs\.|obsolete|archaic|corrupt|diminutive of|dim\. of|fem(?:inine)? of|under |in the phrase|used in|"
    r"as a |like, or|e\. ?g|the \w+ letter|the (?:imperfect|past|preterit)|"
    r"an? (?:old|obsolete|archaic|former|variant|corrupt|alternative|dialectic|contracted)[\w ]* "
    r"(?:form|spelling|plural|imp)|"
    r"(?:an? |the |used as an? )?(?:combining form|prefix|suffix|abbreviation|contraction|corruption|symbol|"
    r"misspelling|plural|past)\b)|\b(?:q\. ?v|ibid|illust)\b",
    re.IGNORECASE,
)
BROKEN = re.compile(
    r"[^ -~]|[=_*/\\|<>{}\[\]#^~@%+?]|\d\d\d|\b[Ss]ee\b|--$|\([^)]*$|^[^(]*\)|\b[A-Z]\. [A-Z]\.|\.\."
)


def pairs(entries: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """Headword -> its clean definitions, both in the order of `entries`; headwords without any are not there.

    A definition of two headwords names neither and is left out under both.

    Args:
        entries: headword -> {"pos": [{"part_of_speech", "definitions": [{"text"}]}]}.
    """
    cleaned: dict[str, list[str]] = {}
    owners: defaultdict[str, set[str]] = defaultdict(set)
    for headword, entry in entries.items():
        if HEADWORD.fullmatch(headword):
            texts = dict.fromkeys(filter(None, (clean(text, headword) for text in _senses(entry))))
            cleaned[headword] = list(texts)
            for text in texts:
                owners[_key(text)].add(headword)
    own = {head: [text for text in texts if len(owners[_key(text)]) == 1] for head, texts in cleaned.items()}
    return {headword: texts for headword, texts in own.items() if texts}


def clean(text: str, headword: str) -> str | None:
    """The cleaned definition; None when it is none, too short or long, or contains the headword."""
    text = " ".join(NOTE.sub(" ", SENSE.sub("", text)).split())
    if len(text) < SHORTEST or REFERENCE.search(text):
        return None
    text = REMARK.sub("", EXAMPLE.sub("", LEAD.sub("", text)))
    text = re.sub(r"\s+([,;.:])", r"\1", text).strip(" ;,:-")
    text = text.removesuffix(".") + "."
    usable = SHORTEST <= len(text) <= LONGEST and len(text.split()) >= FEWEST_WORDS
    if not usable or REFERENCE.search(text) or BROKEN.search(text) or contains(text, headword):
        return None
    return text[0].upper() + text[1:]


def contains(text: str, headword: str) -> bool:
    """Whether the text holds the headword, an inflection of it or a word it is plainly made of.

    Endings aside, a word gives the headword away when either starts with the other, when it starts with the
    first 70 % of the headword, or when its own first 70 % occur anywhere in it ("fastening" in "unfasten").
    """
    words = {_stem(word) for word in re.findall(r"[a-z]{3,}", text.lower())}
    return any(_akin(words, part) for part in re.findall(r"[a-z]{3,}", headword))


def _akin(stems: set[str], part: str) -> bool:
    stem = _stem(part)
    start = stem if len(stem) < 4 else part[: max(4, _most(part))]
    for word in stems:
        if word == stem or (len(word) > 3 and part.startswith(word)):
            return True
        if len(start) > 3 and word.startswith(start):
            return True
        if len(word) > 4 and word[: _most(word)] in part:
            return True
    return False


@lru_cache(maxsize=200_000)
def _stem(word: str) -> str:
    stem = ENDING.sub("", word)
    return stem if len(stem) > 2 else word


def _most(word: str) -> int:
    """70 % of the letters, rounded up."""
    return -(-len(word) * 7 // 10)


def _senses(entry: Mapping[str, Any]) -> Iterable[str]:
    for part in entry["pos"]:
        if not NO_WORD.search(part.get("part_of_speech") or ""):
            yield from (definition["text"] for definition in part["definitions"])


def _key(text: str) -> str:
    return " ".join(re.findall(r"[a-z]+", text.lower()))
