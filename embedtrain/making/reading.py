"""Documents of files: rows, and plain text, Markdown or HTML, one document a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from embedtrain.data.read.bad_rows import BadRows, usable
from embedtrain.data.read.fields import Field, Form, any_text, missing, read_fields
from embedtrain.files.reading import LARGEST
from embedtrain.files.records import Raw, document_rows
from embedtrain.files.rows import DOCUMENTS, SUFFIXES, raw_rows
from embedtrain.files.unpacked import without_packing
from embedtrain.making.documents import HEADING, Document, unlinked
from embedtrain.types import InputError

TEXTS = (*DOCUMENTS, ".html", ".htm")
ROW: Form = {
    "text": Field(any_text, "", may_be_missing=False),
    "title": Field(any_text, ""),
    "id": Field(lambda where, name, value: str(value), ""),
    "translation": Field(any_text, ""),
}


def read_documents(
    data: Sequence[str], bad: Callable[[], BadRows], columns: Mapping[str, str] | None = None
) -> list[Document]:
    """The documents of files and folders, in their order, those without text left out.

    Args:
        data: files of rows or of text, folders of them; two text files alone are a text and its translation,
            line by line.
        bad: gives the policy for the bad rows of an input.
        columns: our field (text, title, id, translation) -> name in the rows.

    Raises:
        InputError: for what is not there or cannot be read, a bad row unless the policy lets it pass, two
            files of unequal numbers of lines, or no document.
    """
    if unknown := set(columns or {}) - ROW.keys():
        raise InputError(
            f"columns: {sorted(unknown)[0]!r} is no field of a document; there are {', '.join(ROW)}"
        )
    paths = [Path(source).expanduser() for source in data]
    for path in paths:
        if not path.exists():
            raise InputError(f"{path}: no such file or folder")
    if len(paths) == 2 and all(path.is_file() and not path.name.endswith(SUFFIXES) for path in paths):
        return list(_aligned(paths[0], paths[1], bad()))
    found = [document for path in paths for document in _of(path, bad, columns or {})]
    filled = [document for document in found if document.text.strip()]
    if not filled:
        raise InputError(f"{', '.join(data)}: holds no document with text")
    return filled


def _of(path: Path, bad: Callable[[], BadRows], columns: Mapping[str, str]) -> Iterator[Document]:
    if path.is_file():
        yield from _file(path, path.parent, bad, columns)
        return
    files = sorted(file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))
    known = [file for file in files if file.name.endswith((*SUFFIXES, *TEXTS))]
    if not known:
        raise InputError(
            f"{path}: holds no file that ends in {', '.join(('.txt', '.md', '.html', *SUFFIXES))}"
        )
    for file in known:
        yield from _file(file, path, bad, columns)


def _file(
    path: Path, root: Path, bad: Callable[[], BadRows], columns: Mapping[str, str]
) -> Iterator[Document]:
    """The documents of a file: its rows, or itself."""
    policy = bad()
    if not path.name.endswith(SUFFIXES):
        yield from usable(document_rows(path, max_bytes=LARGEST), partial(_document, path, root), policy.add)
        return

    def document(where: str, row: dict[str, Any]) -> Document:
        named = {**row, **{ours: row[name] for ours, name in columns.items() if name in row}}
        if "text" not in named:
            raise missing(where, columns.get("text", "text"), row, " Say it: 'columns={text: NAME}'.")
        text, title, name, translation = read_fields(where, named, ROW).values()
        return Document(text, title, name, where, translation)

    yield from usable(raw_rows(path, max_line=policy.max_line), document, policy.add)


def _document(path: Path, root: Path, _: str, row: dict[str, Any]) -> Document:
    """A file as a document: its title is that of the page, its first heading, or its name."""
    text, title, name = str(row["text"]), "", without_packing(path.relative_to(root).as_posix())
    if path.name.lower().endswith((".html", ".htm")):
        page = _Page()
        page.feed(text)
        page.close()
        text, title = page.text(), " ".join(page.title.split())
    headings = (mark[2] for line in text.splitlines() if (mark := HEADING.match(line)))
    title = title or next((unlinked(heading) for heading in headings), Path(name).stem.replace("_", " "))
    return Document(text, title, name, str(path))


def _aligned(first: Path, second: Path, policy: BadRows) -> Iterator[Document]:
    one, other = (_text(path).splitlines() for path in (first, second))
    if len(one) != len(other):
        raise InputError(
            f"{first} has {len(one)} lines and {second} {len(other)}: line by line they are no translations"
        )
    for number, (text, translation) in enumerate(zip(one, other, strict=True), 1):
        where = f"{first}:{number}"
        if bool(text.strip()) != bool(translation.strip()):
            lacks = second if text.strip() else first
            policy.add(
                Raw(where, number, text.encode()), InputError(f"{where}: {lacks} has no text in this line")
            )
        elif text.strip():
            yield Document(text.strip(), "", "", where, translation.strip())


def _text(path: Path) -> str:
    """What a file holds, packed or not; nothing of a blank one."""
    for raw in document_rows(path, max_bytes=LARGEST):
        if isinstance(raw.value, InputError):
            raise raw.value
        if isinstance(raw.value, dict):
            return str(raw.value["text"])
    return ""


class _Page(HTMLParser):
    """A page of HTML as Markdown: headings, paragraphs, links; scripts and styles are left out."""

    SILENT = frozenset({"script", "style", "template", "noscript", "nav", "footer"})
    BLOCKS = frozenset(
        "p div section article main ul ol li table tr blockquote pre br hr header aside dd dt".split()
    )

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.title, self._parts, self._silent, self._link = "", list[str](), 0, ""
        self._in_title = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Begin a part."""
        if tag in self.SILENT:
            self._silent += 1
        elif tag == "title":
            self._in_title = True
        elif len(tag) == 2 and tag[0] == "h" and tag[1] in "123456":
            self._parts.append(f"\n\n{'#' * int(tag[1])} ")
        elif tag in self.BLOCKS:
            self._parts.append("\n\n")
        elif tag == "a":
            self._link = dict(attrs).get("href") or ""
            if self._link:
                self._parts.append("[")

    def handle_endtag(self, tag: str) -> None:
        """End a part."""
        if tag in self.SILENT:
            self._silent = max(0, self._silent - 1)
        elif tag == "title":
            self._in_title = False
        elif tag in self.BLOCKS or (len(tag) == 2 and tag[0] == "h" and tag[1] in "123456"):
            self._parts.append("\n\n")
        elif tag == "a" and self._link:
            self._parts.append(f"]({self._link.replace(' ', '%20')})")
            self._link = ""

    def handle_data(self, data: str) -> None:
        """Take a text."""
        if self._in_title:
            self.title += data
        elif not self._silent:
            self._parts.append(
                " ".join(data.split()).join((" " * data[:1].isspace(), " " * data[-1:].isspace()))
            )

    def text(self) -> str:
        """The page."""
        return "".join(self._parts)
