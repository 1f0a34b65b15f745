"""Build the documentation site without a network: `make docs`, or `python docs/site/make_site.py OUT`.

The pages are the Markdown files of the checkout. A page for each group of settings is made from
docs/configuration.md, the docstrings of the group's classes and the files in conf/. Warnings are errors.
"""

from __future__ import annotations

import ast
import re
import shutil
import sys
import tempfile
from functools import partial
from pathlib import Path

from sphinx.cmd.build import build_main

SITE = Path(__file__).resolve().parent
ROOT = SITE.parents[1]
LINK = re.compile(r"\]\((?!\w+:)([^)#\s]*)(#[^)\s]*)?\)")
TARGET = re.compile(r"^(### .*): `(embedtrain\.[\w.]+)`$")


def main(out: Path) -> int:
    """The exit status of Sphinx; the site is in `out`."""
    sys.path.insert(0, str(ROOT))
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder).resolve()
        lay_out(source)
        options = ["-q", "-W", "--keep-going", "-b", "html", "-c", str(SITE)]
        return build_main([*options, "-d", str(source / ".doctrees"), str(source), str(out)])


def lay_out(source: Path) -> None:
    """Write every page, and every file that a page links to, where it is in the checkout."""
    listed = (ROOT / folder / "README.md" for folder in ("benchmarks", "recipes"))
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *listed]
    texts = {page.relative_to(ROOT).as_posix(): page.read_text("utf-8") for page in pages}
    split, places = groups(texts.pop("docs/configuration.md"))
    texts |= split
    for name, text in texts.items():
        path = source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(LINK.sub(partial(linked, page=name, source=source, places=places), text), "utf-8")


def linked(link: re.Match[str], page: str, source: Path, places: dict[str, str]) -> str:
    """The link as the site needs it: to the page of a group, to a page of a folder, or to a file, copied."""
    name, anchor = link[1], link[2] or ""
    if Path(name).name == "configuration.md" or (not name and page.startswith("docs/configuration")):
        folder = name.removesuffix("configuration.md")
        return f"]({folder}{places.get(anchor, 'configuration')}.md{anchor if anchor in places else ''})"
    target = (ROOT / page).parent / name
    if not name or target.suffix == ".md":
        return link[0]
    if target.is_dir():
        return f"]({name.rstrip('/')}/README.md)" if (target / "README.md").is_file() else "](#)"
    copied = source / target.resolve().relative_to(ROOT)
    copied.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(target, copied)
    return link[0]


def groups(configuration: str) -> tuple[dict[str, str], dict[str, str]]:
    """Page -> text, for the overview and each group; and anchor -> page."""
    head, *sections = re.split(r"^(?=## )", configuration, flags=re.MULTILINE)
    pages, places, listed = {}, {}, []
    for section in sections:
        title = section.splitlines()[0].removeprefix("## ")
        slug = anchor_of(title)
        page = f"configuration_{slug.replace('-', '_')}"
        headings = re.findall(r"^#{2,4} (.+)$", section, re.MULTILINE)
        places |= {f"#{anchor_of(heading)}": page for heading in headings}
        pages[f"docs/{page}.md"] = re.sub(r"^#(#+ )", r"\1", documented(section, slug), flags=re.MULTILINE)
        listed.append(page)
    tree = "\n".join(["```{toctree}", ":maxdepth: 1", *listed, "```"])
    return {"docs/configuration.md": f"{head}\n{tree}\n", **pages}, places


def documented(section: str, group: str) -> str:
    """The section with the docstring of each class and the file of each option."""
    lines = []
    for line in section.splitlines():
        if named := TARGET.match(line):
            lines += [named[1], "", f"Class `{named[2]}`", "", *docstring(named[2])]
        else:
            lines.append(line)
    for path in sorted((ROOT / "conf" / group).glob("*.yaml")):
        lines += ["", f"### `{group}={path.stem}`", "", "```yaml", path.read_text("utf-8").strip(), "```"]
    return "\n".join(lines) + "\n"


def docstring(target: str) -> list[str]:
    """What the source says of a class or function, as Markdown."""
    from embedtrain.settings.signatures import definition_of

    module, _, name = target.rpartition(".")
    text = ast.get_docstring(definition_of(module, name)) or ""
    text = re.sub(r"^(Args|Returns|Raises):$", r"**\1**\n", text, flags=re.MULTILINE)
    return text.splitlines()


def anchor_of(heading: str) -> str:
    """The anchor that GitHub and MyST give a heading."""
    return re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-")


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).absolute()))
