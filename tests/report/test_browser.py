"""The page in a real browser: both themes, three widths, keyboard, no network (skips without one).

Needs playwright (extra `browser`) and a chromium, on the PATH or playwright's own.
"""

import re
import shutil

import pytest

from mucode_jax import report
from mucode_jax.report import evidence, findings, stages
from tests import invented

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright (extra `browser`)")
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)

# The least contrast of any text with what lies behind it (WCAG 2), and where.
CONTRAST = """() => {
  const channels = (c) => (c.match(/[\\d.]+/g) || []).map(Number);
  const light = (c) => {
    const [r, g, b] = channels(c).slice(0, 3).map((v) => v / 255)
      .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (e) => {
    for (; e; e = e.parentElement) {
      const c = getComputedStyle(e).backgroundColor, [, , , a] = channels(c);
      if (a === undefined || a > 0) return c;
    }
    return "rgb(255, 255, 255)";
  };
  let least = [99, ""];
  for (const e of document.querySelectorAll("body *")) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || !e.getClientRects().length) continue;
    const style = getComputedStyle(e), svg = e.closest("svg");
    const a = light(svg ? style.fill : style.color), b = light(behind(svg || e));
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < least[0]) least = [ratio, e.outerHTML.slice(0, 120)];
  }
  return least;
}"""


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as found:
        try:
            opened = found.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        except playwright.Error as error:
            pytest.skip(f"no chromium (apt install chromium): {str(error).splitlines()[0]}")
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    directory = tmp_path_factory.mktemp("run")
    original = stages.texts
    stages.texts = lambda directory, results: (invented.bytes_as_text, invented.bytes_as_text)
    report.write(directory, invented.make_run(directory))
    stages.texts = original
    return directory / "report.html"


def opened(browser, file, width, scheme):
    """The page, and what it said or asked for that it should not have."""
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page = context.new_page()
    complaints = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: complaints.append(request.url))
    page.goto(file.as_uri())
    return page, [c for c in complaints if c not in (file.as_uri(), "data:,")]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 800, 1280])
def test_the_page_fits_is_legible_and_asks_for_nothing(browser, page_file, width, scheme):
    page, complaints = opened(browser, page_file, width, scheme)
    assert not complaints
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for drawing in page.locator("svg[role=img]").all():
        box = drawing.bounding_box()
        assert box["width"] > 200 and box["height"] > 60
    ratio, where = page.evaluate(CONTRAST)
    assert ratio >= 4.5, where
    page.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_comparison_fits_a_phone_and_is_legible(browser, page_file, scheme):
    cells = {"a setting": [page_file.parent], "another one": [page_file.parent]}
    page_file = page_file.with_name("comparison.html")
    page_file.write_text(findings.page(evidence.evidence(cells)))
    page, complaints = opened(browser, page_file, 400, scheme)
    assert not complaints
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    ratio, where = page.evaluate(CONTRAST)
    assert ratio >= 4.5, where
    page.context.close()


def test_filters_work_by_keyboard_alone(browser, page_file):
    page, _ = opened(browser, page_file, 1280, "light")
    talks = page.locator("details.talk")
    everything = talks.count()
    for choice in page.locator("fieldset label:has(input[id])").all():
        name, count = re.fullmatch(r"\s*(.*) \((\d+)\)\s*", choice.text_content()).groups()
        choice.locator("input").focus()
        page.keyboard.press("Space")
        shown = [talk for talk in talks.all() if talk.is_visible()]
        assert len(shown) == int(count), name
        if name.startswith("solved at"):
            assert all(name in talk.text_content() for talk in shown)
        choice.locator("input").evaluate(
            "e => e.closest('fieldset').querySelector('input').click()"
        )
    assert sum(talk.is_visible() for talk in talks.all()) == everything
    first = page.locator("details.talk > summary").nth(1)
    first.focus()
    page.keyboard.press("Enter")
    assert talks.nth(1).get_attribute("open") is not None
    page.context.close()


def test_on_paper_nothing_is_folded_away(browser, page_file):
    page, _ = opened(browser, page_file, 1280, "light")
    page.emulate_media(media="print")
    assert not page.locator(".filters").first.is_visible()
    assert page.locator("details.talk pre.completion").last.is_visible()
    page.context.close()
