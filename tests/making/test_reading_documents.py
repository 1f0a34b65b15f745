"""Documents of files: what is read, and what is refused with its place."""

import gzip

import pytest

from embedtrain.data.read.bad_rows import BadRows
from embedtrain.making.documents import links, paragraphs, sections
from embedtrain.making.reading import read_documents
from embedtrain.types import InputError


def test_files_of_every_kind_are_documents(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/one.md").write_text("Before.\n\n# A [heading](x.md) #\n\nText.", "utf-8")
    (tmp_path / "a/two_words.txt").write_text("\ufeffPlain text.", "utf-8")
    page = """<html><head><title>The
      page</title><style>x {}</style></head><body><nav>menu</nav><h2>Part &amp; more</h2>
      <p>See <a href="one.md">the <b>first</b></a>.<p>Second<br>line</body></html>"""
    (tmp_path / "page.html").write_text(page, "utf-8")
    (tmp_path / "rows.jsonl").write_text('{"id": 7, "title": "T", "text": "X. Y."}\n{"text": ""}\n', "utf-8")
    (tmp_path / ".hidden.txt").write_text("no", "utf-8")
    (tmp_path / "picture.png").write_bytes(b"no")
    found = {document.name: document for document in read_documents([str(tmp_path)], BadRows)}
    assert found.keys() == {"a/one.md", "a/two_words.txt", "page.html", "7"}
    assert found["a/one.md"].title == "A heading"
    assert found["a/two_words.txt"][:2] == ("Plain text.", "two words")
    assert found["page.html"].title == "The page"
    assert [part.heading for part in sections(found["page.html"])] == ["Part & more"]
    assert paragraphs(found["page.html"]) == ["See the first.", "Second", "line"]
    assert [link.target for link in links(found["page.html"])] == ["one.md"]
    assert found["7"][:2] == ("X. Y.", "T")


def test_a_file_that_cannot_be_read_is_left_out_where_bad_rows_are(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/good.txt").write_text("A text.", "utf-8")
    (tmp_path / "docs/latin.txt").write_bytes("caf\xe9".encode("latin-1"))
    (tmp_path / "docs/cut.txt.gz").write_bytes(gzip.compress(b"a text" * 99)[:20])
    with pytest.raises(InputError, match=r"cut\.txt\.gz"):
        read_documents([str(tmp_path / "docs")], BadRows)

    def skipping():
        return BadRows("skip", tmp_path / "bad_rows")

    found = read_documents([str(tmp_path / "docs")], skipping)
    assert [document.name for document in found] == ["good.txt"]
    assert skipping().summary().rows == 2


def test_two_texts_are_aligned_line_by_line(tmp_path):
    one, other = tmp_path / "a.en", tmp_path / "a.de"
    one.write_text("a cat\n\na dog\nonly here\n", "utf-8")
    other.write_text("eine Katze\n\nein Hund\n\n", "utf-8")
    with pytest.raises(InputError, match=r"a\.en:4: .*a\.de has no text in this line"):
        read_documents([str(one), str(other)], BadRows)
    found = read_documents([str(one), str(other)], lambda: BadRows("skip", tmp_path / "bad"))
    assert [(document.text, document.translation) for document in found] == [
        ("a cat", "eine Katze"),
        ("a dog", "ein Hund"),
    ]
    other.write_text("eine Katze\n", "utf-8")
    with pytest.raises(InputError, match=r"has 4 lines and .* 1: line by line they are no translations"):
        read_documents([str(one), str(other)], BadRows)


def test_a_packed_text_is_the_document_that_it_packs(tmp_path):
    plain, packed = tmp_path / "plain", tmp_path / "packed"
    for folder in (plain, packed):
        folder.mkdir()
    (plain / "cat_food.md").write_bytes(b"Cats eat.\n")
    (packed / "cat_food.md.gz").write_bytes(gzip.compress(b"Cats eat.\n"))
    (one,), (other,) = (read_documents([str(folder)], BadRows) for folder in (plain, packed))
    assert one[:3] == other[:3] == ("Cats eat.\n", "cat food", "cat_food.md")


@pytest.mark.parametrize(
    ("files", "columns", "message"),
    [
        ({}, None, r"holds no file that ends in \.txt, \.md"),
        ({"a.txt": b" \n"}, None, "holds no document with text"),
        ({"a.txt": b"caf\xe9"}, None, r"a\.txt: byte 4 is not UTF-8"),
        ({"a.md.gz": gzip.compress(b"whole", mtime=0)[:-9]}, None, r"a\.md\.gz: cannot be read"),
        ({"a.jsonl": b'{"body": "x"}\n'}, None, r"field 'text' is missing; .* 'columns=\{text: NAME\}'"),
        ({"a.jsonl": b'{"body": "x"}\n'}, {"text": "bodi"}, "field 'bodi' is missing; .*Did you mean 'body'"),
        ({"a.jsonl": b'{"text": 3}\n'}, None, r"a\.jsonl:1"),
        ({"a.jsonl": b"{\n"}, None, r"a\.jsonl:1: not valid JSON"),
        ({"a.jsonl": b'{"text": "x"}\n'}, {"query": "x"}, "'query' is no field of a document"),
    ],
)
def test_what_cannot_be_read_is_named(files, columns, message, tmp_path):
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_documents([str(tmp_path)], BadRows, columns)
    with pytest.raises(InputError, match="nowhere: no such file or folder"):
        read_documents([str(tmp_path), "nowhere"], BadRows)
