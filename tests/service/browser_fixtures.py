"""Chromium and a service with twelve sightings: a pytest plugin of the tests of the page."""

import asyncio
import shutil

import pytest
from browser_helpers import LAYOUT_GATE
from service_helpers import jpeg

CHROMIUM = shutil.which("chromium")
ARGUMENTS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run",
             "--disable-component-update", "--disable-sync"]  # fmt: skip


class FastLayouts:
    """Stands for UMAP, which compiles itself for half a minute."""

    async def of(self, ids, vectors):
        while not LAYOUT_GATE.is_set():
            await asyncio.sleep(0.02)
        places = vectors[:, :2] - vectors[:, :2].min(0)
        return places / places.max()


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: pip install playwright"
    )
    if CHROMIUM is None:
        pytest.skip("Debian's chromium is not installed: apt-get install chromium")
    with playwright.sync_playwright() as started:
        launched = started.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def address(listening):
    """The address of a service with twelve sightings: of two identities, and some of none."""
    import httpx

    url, service = listening()
    service.background.layouts = FastLayouts()
    with httpx.Client(base_url=url) as client:
        for n in range(12):
            form = {"id": f"r{n}", "camera": f"c{n % 2 + 1}", "time": str(n)}
            if n < 4:
                form["identity"] = f"id{n % 2}"
            assert client.post("/v1/records", data=form, files={"image": jpeg(n % 2, n)}).status_code == 201
    return url


@pytest.fixture
def page(browser, address):
    """A new page, on which nothing may go wrong."""
    context = browser.new_context(base_url=address)
    opened = context.new_page()
    faults = []
    opened.on("console", lambda message: faults.append(message.text) if message.type in ("error", "warning") else None)
    opened.on("pageerror", lambda error: faults.append(str(error)))
    opened.set_default_timeout(8000)
    yield opened
    context.close()
    assert not faults
