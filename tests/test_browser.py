"""Can the built book be read in a real browser, from its files alone?

Needs Chromium and its driver, and a built book: BOOK_HTML, or what `make book` left.
"""

import json
import os
import shutil
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select, WebDriverWait

ROOT = Path(__file__).resolve().parent.parent
HTML = Path(os.environ.get("BOOK_HTML", ROOT / "book" / "_build" / "html")).resolve()
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
DRIVER = shutil.which("chromedriver")
FLAGS = (
    *("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-sync"),
    *("disable-background-networking", "disable-component-update", "disable-dev-shm-usage"),
)

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no Chromium with its driver here"),
    pytest.mark.skipif(not (HTML / "index.html").is_file(), reason=f"no book in {HTML}"),
]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (
        *FLAGS,
        f"user-data-dir={tmp_path_factory.mktemp('profile')}",
        "window-size=1300,900",
    ):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


def visit(browser, page: str) -> None:
    """Open a page of the book and wait until its math is typeset."""
    browser.get(f"{HTML.as_uri()}/{page}")
    browser.set_script_timeout(30)
    browser.execute_async_script(
        "const done = arguments[0];"
        "const typeset = () => window.MathJax?.startup?.promise?.then(() => done()) ?? done();"
        "document.readyState === 'complete' ? typeset() : addEventListener('load', typeset);"
    )


def complaints(browser) -> list[str]:
    """Console errors, and requests that would have left the machine, since the last call."""
    errors = [
        entry["message"]
        for entry in browser.get_log("browser")
        if entry["level"] in ("SEVERE", "ERROR")
    ]
    for entry in browser.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            url = message["params"]["request"]["url"]
            if urlsplit(url).scheme not in ("file", "data", "blob", "about", "chrome"):
                errors.append(f"asked for {url}")
    return errors


def pages() -> list[str]:
    found = (path.relative_to(HTML) for path in HTML.rglob("*.html"))
    return sorted(str(path) for path in found if path.parts[0] != "_static")


@pytest.mark.parametrize("page", pages())
def test_a_page_loads_whole_from_its_file(browser, page):
    complaints(browser)
    visit(browser, page)
    assert complaints(browser) == []
    raw = browser.execute_script(
        "return [...document.querySelectorAll('.math')].filter("
        "(it) => !it.querySelector('mjx-container')).map((it) => it.textContent)"
    )
    assert raw == [], "math that was not typeset"
    assert not browser.find_elements(By.CSS_SELECTOR, "mjx-merror"), "math that does not parse"
    undrawn = browser.execute_script(
        "return [...document.images].filter((it) => !(it.complete && it.naturalWidth))"
        ".map((it) => it.src)"
    )
    assert undrawn == []


def test_search_finds_a_chapter(browser):
    visit(browser, "search.html?q=coreset")
    results = WebDriverWait(browser, 20).until(
        lambda it: it.find_elements(By.CSS_SELECTOR, "#search-results li a")
    )
    assert f"{HTML}/chapters/coreset.html" in {
        unquote(urlsplit(link.get_attribute("href")).path) for link in results
    }
    assert complaints(browser) == []


def test_the_verdicts_filter_and_sort(browser):
    visit(browser, "index.html")
    table = browser.find_element(By.CSS_SELECTOR, "table.verdicts")

    def column(name: str) -> list[str]:
        heads = [head.text.strip(" ↕↑↓") for head in table.find_elements(By.CSS_SELECTOR, "th")]
        cells = table.find_elements(
            By.CSS_SELECTOR, f"tbody tr:not([hidden]) td:nth-child({heads.index(name) + 1})"
        )
        return [cell.get_attribute("data-value") or cell.text for cell in cells]

    def click(name: str) -> None:
        table.find_element(By.XPATH, f".//th/button[starts-with(., '{name}')]").click()

    everything = column("Verdict")
    click("Verdict")
    assert column("Verdict") == sorted(everything)
    click("Verdict")
    assert column("Verdict") == sorted(everything, reverse=True)
    bar = browser.find_element(By.CSS_SELECTOR, ".verdicts-filter")
    menu = Select(bar.find_element(By.XPATH, ".//label[starts-with(., 'Verdict')]/select"))
    chosen = everything[0]
    menu.select_by_visible_text(chosen)
    assert column("Verdict") == [chosen] * everything.count(chosen)
    count = bar.find_element(By.CSS_SELECTOR, "output").text
    assert count == f"{everything.count(chosen)} of {len(everything)}"
    menu.select_by_visible_text("all")
    bar.find_element(By.CSS_SELECTOR, "input").send_keys("no claim says this")
    assert column("Verdict") == []


class Page(HTMLParser):
    """Ids and links of one page."""

    def __init__(self, path: Path):
        super().__init__()
        self.ids, self.links = set(), []
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.ids.add(given.get("id"))
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])


def test_no_link_inside_the_book_is_dead():
    read = {HTML / page: Page(HTML / page) for page in pages()}
    dead = []
    for path, page in read.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchor = unquote(parts.fragment)
            if not target.is_file() or (target in read and anchor not in read[target].ids | {""}):
                dead.append(f"{path.relative_to(HTML)}: {link}")
    assert dead == []
