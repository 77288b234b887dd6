"""The wheel: what hatchling would put into it."""

from pathlib import Path

from hatchling.builders.wheel import WheelBuilder

ROOT = Path(__file__).parents[1]


def test_the_wheel_has_every_file_of_the_package_and_nothing_else():
    packed = {file.distribution_path for file in WheelBuilder(str(ROOT)).recurse_included_files()}
    source = ROOT / "src"
    needed = {
        file.relative_to(source).as_posix()
        for file in (source / "resight").rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert packed == needed
    page = "resight/service/page"
    for name in ("templates/base.html", "templates/map.html", "static/page.css", "static/htmx.min.js",
                 "static/hx-sse.min.js", "static/htmx-LICENSE.txt", "static/map.js"):  # fmt: skip
        assert f"{page}/{name}" in packed
    assert "resight/py.typed" in packed
