"""The page in Debian's Chromium: pictures, crop, search, assignment, clusters, removal; no console error; axe-core."""

import re

from browser_helpers import picture, require_accessible, search, until, uploaded
from service_helpers import jpeg

pytest_plugins = ("service_fixtures", "browser_fixtures")
PASTE = """async ([bytes, type]) => {
  const transfer = new DataTransfer();
  transfer.items.add(new File([new Uint8Array(bytes)], "picture.jpg", { type: "image/jpeg" }));
  const event = type === "paste"
    ? new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true })
    : new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true });
  document.querySelector(type === "paste" ? "main" : ".slot:last-child").dispatchEvent(event);
}"""


def test_upload_search_filter_assign_and_undo(page):
    page.goto("/")
    page.set_input_files("#file-rgb", picture(0, 0))
    search(page)
    assert page.locator(".card").count() == 12
    require_accessible(page)
    page.click("summary:has-text('Filters')")
    page.select_option("#f-camera", "c2")
    page.fill("#f-after", "3")
    search(page)
    assert page.locator(".card").count() == 5
    card = page.locator(".card:has(button[value=r5])")
    page.fill("#judged", "ann")
    card.get_by_role("button", name="Same", exact=True).click()
    card.locator(".who:has-text('ann')").wait_for()
    assert "assigned to ann" in page.inner_text("#change")
    page.click("#change >> text=Undo")
    card.locator(".who:has-text('unassigned')").wait_for()
    page.locator("#change:has-text('undone')").wait_for()


def test_paste_drop_and_crop(page):
    page.goto("/")
    data = list(jpeg(1, 1, (64, 128)))
    page.evaluate(PASTE, [data, "paste"])
    page.evaluate(PASTE, [data, "drop"])
    canvas = page.locator("[data-modality=rgb] canvas")
    canvas.wait_for()
    page.locator("[data-modality=tir] canvas").wait_for()
    assert uploaded(page) == uploaded(page, "tir") == len(data)
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + 4, box["y"] + 4)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.up()
    until(page, f"document.getElementById('file-rgb').files[0].size < {len(data)}")
    size = page.evaluate(
        "createImageBitmap(document.getElementById('file-rgb').files[0]).then(b => [b.width, b.height])"
    )
    assert 20 < size[0] < 40
    assert 50 < size[1] < 72
    page.get_by_role("button", name="Whole picture: Colour").click()
    assert uploaded(page) == len(data)
    canvas.focus()
    page.keyboard.press("ArrowRight")
    until(page, f"document.getElementById('file-rgb').files[0].size != {len(data)}")
    page.get_by_role("button", name="Remove: Thermal").click()
    assert uploaded(page, "tir") == 0
    assert search(page).ok


def test_search_by_three_modalities(page):
    page.goto("/")
    for name in ("rgb", "nir", "tir"):
        page.set_input_files(f"#file-{name}", picture(1, 3))
    search(page)
    assert "for RGB + NIR + TIR" in page.inner_text("#results")


def test_a_bad_picture_is_explained(browser, address):
    page = browser.new_context(base_url=address).new_page()  # the browser itself logs the status 422
    page.goto("/")
    page.set_input_files("#file-rgb", {"name": "a.jpg", "mimeType": "image/jpeg", "buffer": b"no picture"})
    page.click("#search > button.primary")
    page.locator("#notice .alert").wait_for()
    page.context.close()


def test_confirm_a_cluster_and_remove_the_identity(page):
    page.goto("/clusters?threshold=-1")
    cluster = page.locator(".cluster").first
    cluster.wait_for(timeout=30_000)  # on a busy machine, after the progress
    require_accessible(page)
    shown = cluster.locator("input[type=checkbox]").count()
    cluster.get_by_role("button", name="Split").click()
    until(page, "document.querySelectorAll('.cluster').length >= 2")
    cluster = page.locator(".cluster").first
    size = cluster.locator("input[type=checkbox]").count()
    assert size < shown
    cluster.get_by_label("Name of the identity").fill("bea")
    cluster.get_by_role("button", name="Confirm").click()
    page.locator("#change:has-text('assigned to bea')").wait_for()
    page.goto("/identity?name=bea")
    assert page.locator(".choice").count() == size
    require_accessible(page)
    page.click("text=Remove all of bea")
    page.get_by_role("button", name="Remove bea").click()
    page.wait_for_url("**/identities")
    assert "bea" not in page.inner_text("main")


def test_other_pages_are_accessible_and_fit_a_phone(browser, address):
    for scheme in ("light", "dark"):
        context = browser.new_context(base_url=address, color_scheme=scheme, viewport={"width": 360, "height": 740})
        page = context.new_page()
        for path in ("/", "/identities", "/identity?name=id0", "/cameras", "/camera?name=c1", "/admin", "/sign-in"):
            page.goto(path)
            require_accessible(page)
            assert page.evaluate("document.documentElement.scrollWidth") <= 360, path
        context.close()


def test_search_without_scripts(browser, address):
    context = browser.new_context(base_url=address, java_script_enabled=False)
    page = context.new_page()
    page.goto("/")
    page.set_input_files("#file-nir", picture(0, 2))
    page.click("#search > button.primary")
    assert re.search(r"\d+ results", page.inner_text("main"))
    context.close()
