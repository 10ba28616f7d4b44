"""The page in a real browser: sort, filter, hover, play, keyboard, print; and hostile texts run nothing."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import hostile
import pytest

from evar.webpage import write_report

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A page with hostile texts, opened once; what it complains of, and asks for, is kept."""
    driver = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"no browser here: none of {', '.join(BROWSERS)}")
    root = tmp_path_factory.mktemp("page")
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of the broken record
        for name in ("config", "data", "store"):
            patch.setenv(f"EVAR_{name.upper()}", str(root / name))
        path = write_report(hostile.make_folder(root), maps="none")
    with driver.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=found, args=["--no-sandbox"])
        opened = browser.new_page(viewport={"width": 1200, "height": 900})
        opened.set_default_timeout(60_000)
        opened.complaints, opened.asked = [], []
        opened.on("console", lambda message: opened.complaints.append(message.text))
        opened.on("pageerror", lambda error: opened.complaints.append(str(error)))
        opened.on("dialog", lambda dialog: (opened.complaints.append("dialog"), dialog.dismiss()))
        opened.on("request", lambda request: opened.asked.append(request.url))
        opened.goto(Path(path).as_uri())
        opened.wait_for_selector("html[data-ready]")
        yield opened
        browser.close()


def list_column(page, column: int) -> list[str]:
    """The texts of one column of the main table, of the rows that are shown."""
    rows = page.locator("table.scores tbody tr:visible")
    return [rows.nth(at).locator(":scope > *").nth(column).inner_text() for at in range(rows.count())]


def test_a_click_or_a_key_sorts(page):
    heading = page.locator("table.scores thead button").nth(2)
    heading.click()
    scores = [float(text.split()[0]) for text in list_column(page, 2) if text[0].isdigit()]
    assert scores == sorted(scores, reverse=True) and len(scores) > 2
    heading.focus()
    page.keyboard.press("Enter")
    assert [float(text.split()[0]) for text in list_column(page, 2) if text[0].isdigit()] == scores[::-1]
    assert heading.locator("xpath=..").get_attribute("aria-sort") == "ascending"


def test_a_word_filters_rows(page):
    field = page.locator("input.filter").first
    field.fill("good")
    assert next(iter(list_column(page, 0))).startswith("good")
    assert page.locator("table.scores tbody tr:visible").count() == 1
    field.fill("")
    assert page.locator("table.scores tbody tr:visible").count() > 2


def test_hovering_and_focus_explain(page):
    score = page.locator("button.score").first
    score.hover()
    assert "95 % interval" in page.locator("#tip").inner_text()
    page.locator("button.mark").first.focus()
    assert hostile.ATTACKS[2] in page.locator("#tip").inner_text()
    page.keyboard.press("Escape")
    assert page.locator("#tip").is_hidden()


def test_a_point_of_a_curve_tells_layer_score_interval_and_n(page):
    page.locator("#layers").scroll_into_view_if_needed()
    page.wait_for_selector("#layers .chart .scatterlayer .point")
    # The point's own place: pointer events go to the layer above it.
    box = page.locator("#layers .chart .scatterlayer .point").first.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_selector("#layers .chart .hoverlayer .hovertext")
    text = page.locator("#layers .chart .hoverlayer").first.text_content()
    assert "95 % interval" in text and "n = " in text


def test_a_score_leads_to_its_row_and_a_confusion_to_its_clips(page):
    page.locator("button.score", has_text="87.5").first.click()
    assert page.locator("#row-shown h3").inner_text().startswith("good")
    wrong = page.locator(".matrix button[data-tip*='taken for']").filter(has_text="1").first
    wrong.click()
    assert page.locator("#listen-clips .clip").count() >= 1
    assert page.locator("#listen-class").input_value() != "-1" and page.locator("#listen-taken").input_value() != "-2"


def test_two_rows_are_compared_next_to_their_test(page):
    page.locator("#listen-class").select_option("-1")
    page.locator("#listen-taken").select_option("-2")
    other = page.locator("#listen-row").input_value()
    names = page.locator("#listen-other option")
    value = next(
        names.nth(at).get_attribute("value")
        for at in range(names.count())
        if names.nth(at).get_attribute("value") not in ("-1", other)
    )
    page.locator("#listen-other").select_option(value)
    assert "points, 95 % interval" in page.locator("#listen-test").inner_text()
    assert page.locator("#listen-clips .clip").first.locator("p").count() == 4  # label, both predictions, name


def test_a_clip_plays(page):
    player = page.locator("#listen-clips audio").first
    player.scroll_into_view_if_needed()
    player.evaluate("one => { one.muted = true; return one.play(); }")
    page.wait_for_function("document.querySelector('#listen-clips audio').currentTime > 0")


def test_themes_and_a_narrow_screen(page):
    before = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.locator("#theme").click()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != before
    page.set_viewport_size({"width": 400, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 400  # only tables scroll sideways
    page.set_viewport_size({"width": 1200, "height": 900})


def test_printing_leaves_out_what_only_a_screen_can_do(page):
    assert page.pdf()[:5] == b"%PDF-"
    page.emulate_media(media="print")
    assert page.locator("nav").is_hidden() and page.locator("table.scores").first.is_visible()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    page.emulate_media(media="screen")


def test_hostile_texts_ran_nothing_and_nothing_was_asked_for(page):
    for name in ("row-task", "row-name", "listen-task", "listen-row", "cost-kind", "layers-kind"):
        menu = page.locator(f"#{name}")
        for at in range(menu.locator("option").count()):
            menu.select_option(index=at)
    page.locator("#layers details").first.evaluate("one => { one.open = true; }")
    for at in range(page.locator("button.mark").count()):
        page.locator("button.mark").nth(at).click(force=True)
    page.wait_for_timeout(500)
    assert page.evaluate("window.hacked") is None
    assert page.complaints == []
    assert all(url.startswith(("file:", "data:", "blob:")) for url in page.asked)
    assert page.evaluate("document.querySelectorAll('a[href^=javascript], [onerror], [onmouseover]').length") == 0
