"""Hooks of mkdocs.yml: the site is made of the documents as they are, which are written for GitHub's reader.

Files outside docs/ that a page links to come into the site beside the pages of docs/, README.md as its start page.
Links follow them, and what GitHub's Markdown reads without a blank line before it (lists, tables) gets one.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.structure.files import Files

ROOT = Path(__file__).resolve().parent.parent
#: Pages outside docs/ -> their place in the site. A README.md would take the place of index.md.
PAGES = {"README.md": "start.md", "CONTRIBUTING.md": "CONTRIBUTING.md", "CHANGELOG.md": "CHANGELOG.md"}
LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)\s#]+)")
ITEM = re.compile(r"(?:[*-]|\d+\.) ")
FENCE = "```"


def on_files(files: Files, config: Any) -> Files:
    """Adds what lies outside docs/."""
    from mkdocs.structure.files import File

    docs = Path(config.docs_dir)
    for page in [*docs.glob("*.md"), *(ROOT / name for name in PAGES)]:
        for target in LINK.findall(page.read_text(encoding="utf-8")):
            path = (page.parent / target).resolve()
            if not path.is_file() or path.is_relative_to(docs):
                continue
            place = path.relative_to(ROOT).as_posix()
            place = PAGES.get(place, place)
            if files.get_file_from_path(place) is None:
                files.append(File.generated(config, place, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """The page with links as places in the site, and with blank lines where the site's reader wants them."""
    source = Path(page.file.abs_src_path).resolve()
    docs = Path(config.docs_dir)

    def moved(link: re.Match[str]) -> str:
        path = (source.parent / link[1]).resolve()
        if path.is_relative_to(docs):
            return path.relative_to(docs).as_posix()
        if not path.is_relative_to(ROOT):
            return link[1]
        place = path.relative_to(ROOT).as_posix()
        return PAGES.get(place, place)

    return "\n".join(LINK.sub(moved, line) for line in spaced(markdown.splitlines())) + "\n"


def spaced(lines: list[str]) -> list[str]:
    """Lines with a blank one before lists and tables that follow a paragraph; fences are tagged by their language."""
    found: list[str] = []
    fenced = listed = False
    for line in lines:
        before = found[-1] if found else ""
        if line.lstrip().startswith(FENCE):
            fenced = not fenced
            line = re.sub(r"^(\s*```\w*) \w+$", r"\1", line)
        elif not fenced:
            item, row = ITEM.match(line) is not None, line.startswith("|")
            starts = (item and not listed) or (row and not before.startswith("|"))
            if starts and before.strip():
                found.append("")
            listed = item or (listed and (not line.strip() or line.startswith(" ") or bool(before.strip())))
        found.append(line)
    return found
