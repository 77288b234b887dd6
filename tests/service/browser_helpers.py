"""What the tests of the page in a browser share (the fixtures are in browser_fixtures.py)."""

import threading
from pathlib import Path

from service_helpers import jpeg

AXE = (Path(__file__).parent / "axe.min.js").read_text()
LAYOUT_GATE = threading.Event()
"""While it is not set, no map is ready."""
LAYOUT_GATE.set()


def picture(identity=0, shot=0, size=(32, 64)):
    return {"name": "picture.jpg", "mimeType": "image/jpeg", "buffer": jpeg(identity, shot, size)}


def uploaded(page, name="rgb"):
    """The size in bytes of the file in a slot."""
    return page.evaluate(f"document.getElementById('file-{name}').files[0]?.size ?? 0")


def search(page):
    with page.expect_response("**/search") as answered:
        page.click("#search > button.primary")
    page.wait_for_selector("#results h2:focus")
    return answered.value


def until(page, expression):
    """Wait until an expression is true: the page's policy does not let a script evaluate it there."""
    for _ in range(200):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(20)
    raise AssertionError(expression)


def require_accessible(page):
    found = page.evaluate(f"{AXE}; axe.run().then(result => result.violations)")
    assert not [(v["id"], [n["html"] for n in v["nodes"]]) for v in found if v["impact"] in ("serious", "critical")]
