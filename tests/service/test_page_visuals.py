"""Explanations, the map and progress in Debian's Chromium; crop by touch; every page in light and dark, on a phone."""

import time

import pytest
from browser_helpers import LAYOUT_GATE, picture, require_accessible, search, until
from service_helpers import jpeg

pytest_plugins = ("service_fixtures", "browser_fixtures")
PAGES = ("/", "/identities", "/identity?name=id0", "/clusters?threshold=-1", "/cameras", "/camera?name=c1", "/admin",
         "/sign-in", "/compare", "/add/many", "/similar?id=r0", "/map", "/tasks/none")  # fmt: skip


def test_why_this_match_opens_over_the_results_and_closes(page):
    page.goto("/")
    page.set_input_files("#file-rgb", picture(0, 0))
    search(page)
    page.get_by_role("button", name="Why?").nth(1).click()
    page.locator("#why-dialog[open] #why-title:focus").wait_for()
    assert page.locator("#why svg image").count() == 4
    require_accessible(page)
    page.keyboard.press("Escape")
    until(page, "!document.getElementById('why-dialog').open")
    page.get_by_role("button", name="Why?").first.click()
    page.locator("#why-dialog[open]").wait_for()
    page.get_by_role("button", name="Close").click()
    until(page, "!document.getElementById('why-dialog').open")


def test_two_pictures_are_compared(page):
    page.goto("/compare")
    page.set_input_files("#file-first", picture(0, 0))
    page.set_input_files("#file-second", picture(0, 7))
    page.click("#search > button.primary")
    page.locator("#results .why").wait_for()
    assert "similarity" in page.inner_text("#results")
    require_accessible(page)


def test_progress_ends_in_the_map_where_a_script_arrives_late(page):
    late = []

    def delay(route):
        late.append(route.request.url)
        time.sleep(1)
        route.continue_()

    page.route("**/hx-sse.min.js*", delay)
    LAYOUT_GATE.clear()
    try:
        page.goto("/map")
        page.locator("progress").wait_for()
    finally:
        LAYOUT_GATE.set()
    page.locator("figure.map.is-watched").wait_for(timeout=15_000)
    assert late


def test_the_map_appears_after_its_progress_and_opens_an_identity(page):
    LAYOUT_GATE.clear()
    try:
        page.goto("/map")
        page.locator("progress").wait_for()
        require_accessible(page)
    finally:
        LAYOUT_GATE.set()
    page.locator("figure.map.is-watched").wait_for(timeout=15_000)
    assert page.locator("figure.map a").count() == page.locator("figure.map circle").count() > 0
    require_accessible(page)
    named = page.locator("figure.map a[href*='identity']").last  # no other point lies over the last one
    label = named.get_attribute("data-label")
    named.hover()
    page.locator("#map-card:visible").wait_for()
    assert label in page.inner_text("#map-card")
    until(page, "document.querySelector('#map-card img').naturalWidth > 0")
    assert page.locator("figure.map a.is-chosen").count() == page.locator(f"figure.map a[data-label='{label}']").count()
    named.click()
    page.wait_for_url("**/identity?name=*")
    page.goto("/map?colour=camera")
    page.get_by_role("link", name="c1").click()
    page.wait_for_url("**/camera?name=c1")


def test_many_pictures_are_added_with_progress(page):
    page.goto("/add/many")
    page.set_input_files("#images", [picture(n, n) for n in range(40, 52)])
    page.fill("#m-identity", "many")
    page.get_by_role("button", name="Add the pictures").click()
    page.locator("h1:has-text('12 pictures added')").wait_for()
    page.goto("/identity?name=many")
    assert page.locator(".choice").count() == 12
    page.click("text=Remove all of many")
    page.get_by_role("button", name="Remove many").click()
    page.wait_for_url("**/identities")


def test_crop_by_touch(browser, address):
    context = browser.new_context(
        base_url=address, has_touch=True, is_mobile=True, viewport={"width": 390, "height": 800}
    )
    page = context.new_page()
    page.goto("/")
    page.set_input_files("#file-rgb", picture(1, 1, (64, 128)))
    canvas = page.locator("[data-modality=rgb] canvas")
    canvas.wait_for()
    canvas.scroll_into_view_if_needed()
    whole = len(jpeg(1, 1, (64, 128)))
    box = canvas.bounding_box()
    session = context.new_cdp_session(page)

    def touch(kind, *fractions):
        points = [{"x": box["x"] + x * box["width"], "y": box["y"] + y * box["height"]} for x, y in fractions]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    before = page.evaluate("window.scrollY")
    touch("touchStart", (0.05, 0.05))
    for step in (0.2, 0.35, 0.5):
        touch("touchMove", (step, step))
    touch("touchEnd")
    until(page, f"document.getElementById('file-rgb').files[0].size != {whole}")
    size = page.evaluate(
        "createImageBitmap(document.getElementById('file-rgb').files[0]).then(b => [b.width, b.height])"
    )
    assert 22 < size[0] < 36
    assert 46 < size[1] < 70
    assert page.evaluate("window.scrollY") == before, "a drag on the picture crops, and does not scroll"
    page.get_by_role("button", name="Whole picture: Colour").click()
    until(page, f"document.getElementById('file-rgb').files[0].size == {whole}")
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_is_accessible_and_fits_a_phone(browser, address, scheme):
    context = browser.new_context(base_url=address, color_scheme=scheme, viewport={"width": 360, "height": 740})
    page = context.new_page()
    for path in PAGES:
        page.goto(path)
        if path == "/map":
            page.locator("figure.map").wait_for()
        require_accessible(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, path
    context.close()
