"""Both pages in a browser: clicked through, nothing loaded, no error, readable by assistive technology.

Needs Playwright and Chromium (CHROMIUM=... names one that is installed), one check axe-playwright-python too.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.placement.report.pages import write_pages

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")

#: Findings of axe that count.
SERIOUS = {"serious", "critical"}


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`report.html` and `sweep.html` of small documents with names that are HTML, or Rich markup."""
    return write_pages(tmp_path_factory.mktemp("pages"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    found = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    with playwright.sync_playwright() as running:
        try:
            opened = running.chromium.launch(executable_path=found, args=["--no-sandbox"])
        except playwright.Error as error:
            pytest.skip(f"no Chromium: {str(error).splitlines()[0]}")
        yield opened
        opened.close()


@pytest.fixture(params=[1300, 390])
def tab(browser: Any, request: pytest.FixtureRequest) -> Iterator[Any]:
    """A tab that fails the test if anything is loaded, or goes wrong."""
    page = browser.new_page(viewport={"width": request.param, "height": 900})
    wrong: list[str] = []
    page.on("request", lambda r: None if r.url.startswith(("file:", "data:")) else wrong.append(f"loads {r.url}"))
    page.on("console", lambda m: wrong.append(m.text) if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda e: wrong.append(str(e)))
    page.on("dialog", lambda d: wrong.append("a name was run as a script"))
    yield page
    page.close()
    assert wrong == []


def serious(page: Any) -> list[str]:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    found = axe.Axe().run(page).response["violations"]
    return [f"{v['id']}: {v['help']} {v['nodes'][0]['html'][:120]}" for v in found if v["impact"] in SERIOUS]


def test_the_report_is_clicked_through(tab: Any, pages: Path) -> None:
    tab.goto((pages / "report.html").as_uri())
    tab.wait_for_selector("#timeline .main-svg")
    assert tab.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    names = tab.locator("#adapters-body td:first-child")
    assert "<b>x</b>" in names.all_inner_texts()
    assert tab.locator("b, i, img").count() == 0
    tab.fill("#adapters-search", "[/prod]")
    assert names.all_inner_texts() == ["team[/prod]"]
    tab.fill("#adapters-search", "")
    tab.click("#adapters-on")
    assert "101 to" in tab.inner_text("#adapters-count")
    tab.click("#adapters th:nth-child(2) button")
    assert tab.get_attribute("#adapters th:nth-child(2)", "aria-sort") in ("ascending", "descending")
    before = tab.inner_text("#timeline-limit")
    tab.select_option("#timeline-gpu", index=1)
    assert tab.inner_text("#timeline-limit") != before
    tab.select_option("#compare-figure", "e2e_mean_s")
    for chart in ("load", "memory", "compare", "timeline", "what-if"):
        assert tab.locator(f"#{chart} .main-svg").count() > 0, chart
    assert tab.locator("a[href='deploy/gpu000.sh']").count() == 1


def test_the_comparison_is_clicked_through(tab: Any, pages: Path) -> None:
    tab.goto((pages / "sweep" / "sweep.html").as_uri())
    tab.wait_for_selector("#pareto .main-svg")
    assert tab.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert tab.locator("#runs-body tr").count() == 4
    assert tab.locator("#runs-body tr.bad").count() == 1
    assert tab.locator("b, i, img").count() == 0


@pytest.mark.parametrize("name", ["report.html", "sweep/sweep.html"])
def test_no_serious_finding_of_axe(tab: Any, pages: Path, name: str) -> None:
    tab.goto((pages / name).as_uri())
    tab.wait_for_selector(".main-svg")
    assert serious(tab) == []


def test_the_report_prints(browser: Any, pages: Path) -> None:
    page = browser.new_page()
    page.goto((pages / "report.html").as_uri())
    page.emulate_media(media="print")
    assert not page.is_visible("#adapters-search")
    assert page.pdf(format="A4")[:4] == b"%PDF"
    page.close()
