"""Documents, and their parts: sections, paragraphs, passages, sentences, links.

A text is read as Markdown: `#` begins a heading, an empty line ends a paragraph. `reading.py` turns pages of
HTML into that.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

HEADING = re.compile(r"^(#{1,6})\s+(.+?)\s*#*\s*$")
ENDS = re.compile(r"(?<=[.!?])[\"')\]]*\s+(?=[\"'(\[]?[A-Z0-9À-Þ])|(?<=[。！？])")
# Where no letter is a capital, a stop ends a sentence behind a word of three letters, or after a space.
SMALL_ENDS = re.compile(r"(?:(?<=\w{3}[.!?؟।])|(?<=\s[.!?؟।]))[\"')\]]*\s+(?=\S)|(?<=[。！？])")
# [text](target), [text][target] is left alone; [[target|text]] of wikis
LINK = re.compile(
    r"(?<!!)\[([^\[\]]*)\]\(\s*<?([^()\s>]+)>?(?:\s+[\"'][^\"']*[\"'])?\s*\)|\[\[([^\[\]|]+)(?:\|([^\[\]]*))?\]\]"
)
WORD = re.compile(r"\w+")
FENCE = re.compile(r"^(```|~~~).*?^\1\s*$", re.MULTILINE | re.DOTALL)


class Document(NamedTuple):
    """A text of a corpus."""

    text: str
    title: str  # "" where it has none
    name: str  # what links call it: its id, or its path in the folder that was read
    where: str  # "file.jsonl:12"
    translation: str = ""


class Section(NamedTuple):
    """What comes under a heading."""

    heading: str  # "" before the first
    paragraphs: tuple[str, ...]


class Link(NamedTuple):
    """A paragraph that names another document."""

    target: str
    paragraph: str  # without the marks of its links


def sections(document: Document) -> list[Section]:
    """The sections of a document that hold a paragraph, in their order; marks of links are taken off."""
    found, heading, lines = list[Section](), "", list[str]()

    def close() -> None:
        paragraphs = [" ".join(part.split()) for part in re.split(r"\n\s*\n", "\n".join(lines))]
        if filled := tuple(unlinked(part) for part in paragraphs if WORD.search(part)):
            found.append(Section(heading, filled))

    for line in FENCE.sub("", document.text).splitlines():
        if (mark := HEADING.match(line)) is None:
            lines.append(line)
        else:
            close()
            heading, lines = unlinked(mark[2]), []
    close()
    return found


def paragraphs(document: Document) -> list[str]:
    """All paragraphs of a document, in their order."""
    return [part for section in sections(document) for part in section.paragraphs]


def passages(document: Document, words: int) -> list[list[str]]:
    """The sentences of a document in runs of about `words` words; none crosses a heading."""
    found = []
    for section in sections(document):
        run, length = list[str](), 0
        for sentence in (one for part in section.paragraphs for one in sentences(part)):
            size = len(WORD.findall(sentence))
            if run and length + size > words:
                found.append(run)
                run, length = [], 0
            run.append(sentence)
            length += size
        if run:
            found.append(run)
    return found


def sentences(text: str) -> list[str]:
    """The sentences of a paragraph: ended by . ! ? before a capital or a digit, or by 。！？.

    A paragraph without capitals is written small throughout, or in a script that has none.
    """
    ends = SMALL_ENDS if text == text.lower() else ENDS
    return [part.strip() for part in ends.split(text) if WORD.search(part)]


def links(document: Document) -> list[Link]:
    """Each link of each paragraph of a document; the anchor of a target is left out."""
    found = []
    for block in re.split(r"\n\s*\n", FENCE.sub("", document.text)):
        text = unlinked(" ".join(line for line in block.split("\n") if not HEADING.match(line)).strip())
        for mark in LINK.finditer(block):
            target = (mark[2] or mark[3] or "").partition("#")[0].strip()
            if target and WORD.search(text):
                found.append(Link(target, " ".join(text.split())))
    return found


def unlinked(text: str) -> str:
    """A text with what its links show in the place of their marks."""
    return LINK.sub(lambda mark: mark[1] or mark[4] or mark[3] or "", text)


def words_of(text: str) -> list[str]:
    """Its words, in small letters."""
    return WORD.findall(text.lower())


def joined(parts: Sequence[str]) -> str:
    """Sentences or paragraphs as one text."""
    return " ".join(parts)
