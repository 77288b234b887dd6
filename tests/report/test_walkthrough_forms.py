"""The forms of a walkthrough: text, Markdown, HTML, JSON; docs/walkthrough.md is what the command prints."""

import json
import re
import shlex
from html.parser import HTMLParser
from pathlib import Path

import pytest

from resight.cli import main
from resight.config import recipes
from resight.config.recipes import vary
from resight.errors import ConfigError
from resight.report.walkthrough.summary import summarize
from resight.report.walkthrough.text import number_text

PAGE = Path(__file__).parents[2] / "docs" / "walkthrough.md"
OUTPUT = re.compile(r"<!-- output: resight (.*?)(?:; parts: (.*?))? -->\n(.*?)<!-- end of output -->", re.DOTALL)
DECIMALS = re.compile(r"-?\d[\d,]*\.\d+(?:e[+-]\d+)?|\d(?:\.\d+)?e[+-]\d+|(?<=gradient )\d+")
VOID = {"meta", "img"}


@pytest.fixture(scope="module")
def summary():
    run = vary(recipes.trimodal_fusion(), model={"backbone": "test_vit", "jpm": True}, preprocessing={"size": (64, 32)})
    return summarize(run)


class Page(HTMLParser):
    """Reads a page, and fails where a tag is not closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict]] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def test_html_is_one_page_that_needs_nothing_else(summary):
    text = summary.render("html")
    page = Page()
    page.feed(text)
    assert page.open == []
    assert not re.search(r"https?:|//|@import|url\(", re.sub(r"data:image/png;base64,[\w+/=]+", "", text))
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "link", "iframe", "object"}
    assert "prefers-color-scheme: dark" in text
    links = [attributes["href"][1:] for tag, attributes in page.tags if tag == "a"]
    assert links == [attributes["id"] for tag, attributes in page.tags if tag == "h2"]
    assert len(links) == len(summary.sections)
    for step in summary.steps:
        assert step.name in page.texts
    images = [attributes["alt"] for tag, attributes in page.tags if tag == "img"]
    present = summary.step("present").content
    assert len(images) == sum(map(sum, present))
    assert page.texts.count("absent") == 12 - len(images) > 0


def test_names_from_a_recipe_are_escaped(summary):
    from dataclasses import replace

    text = replace(summary, recipe="<b>&", backbone="a<i>").render("html")
    assert "<b>&" not in text
    assert "a<i>" not in text
    assert "&lt;b&gt;&amp;, tensor by tensor" in text


def test_markdown_has_a_row_for_each_step(summary):
    text = summary.render("markdown")
    for section in summary.sections:
        assert f". {section.title}\n\n{section.text}\n" in text
    rows = [line for line in text.splitlines() if line.startswith("| **")]
    assert [row.split("**")[1] for row in rows] == [step.name for step in summary.steps]
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 4 for row in rows)
    patches = next(row for row in rows if "**patches**" in row)
    assert "`[R, N, D]`<br>`[" in patches
    assert "parameters 49,216; MFLOPs" in patches


def test_text_fits_a_terminal(summary):
    lines = summary.render("text").splitlines()
    assert max(map(len, lines)) <= 110
    named = [line for line in lines if re.match(r"  \S", line)]
    for step in summary.steps:
        assert any(line[2:].startswith(step.name) for line in named), step.name


def test_another_form_is_refused(summary):
    with pytest.raises(ConfigError, match="rendered as text, markdown, html, not 'pdf'"):
        summary.render("pdf")


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0"), (1.0, "1"), (90124160.0, "90,124,160"), (0.008, "0.008"), (6.62264, "6.623")]
)
def test_numbers(value, text):
    assert number_text(value) == text


def test_the_command_prints_every_form(capsys):
    command = ["summary", "tiny", "--preprocessing.size", "64", "32"]
    printed = {}
    for form in ("text", "markdown", "html", "json"):
        assert main([*command, "--format", form]) == 0
        printed[form] = capsys.readouterr().out
    document = json.loads(printed["json"])
    assert document["recipe"] == "tiny"
    assert "thumbnails" not in document
    steps = [step for section in document["sections"] for step in section["steps"]]
    patches = next(step for step in steps if step["name"] == "patches")
    assert patches["shape"] == [12, 8, 64]
    assert patches["axes"] == ["R", "N", "D"]
    assert "  patches " in printed["text"]
    assert "| **patches** |" in printed["markdown"]
    assert "<h3>patches</h3>" in printed["html"]


def test_the_command_refuses_what_it_does_not_know(capsys):
    assert main(["summary", "tinny"]) == 2
    assert "no recipe named 'tinny'" in capsys.readouterr().err
    assert main(["summary", "tiny", "--format", "pdf"]) == 2
    assert "pdf" in capsys.readouterr().err
    assert main(["summary", "--help"]) == 0
    assert "usage: resight summary RECIPE" in capsys.readouterr().out


def parts_of(output: str, titles: str | None) -> str:
    """The whole output, or its parts of some titles."""
    if titles is None:
        return output
    parts = re.split(r"^(?=## )", output, flags=re.MULTILINE)
    chosen = [part.strip() for part in parts if part.splitlines()[0].split(". ", 1)[-1] in titles.split(", ")]
    assert len(chosen) == len(titles.split(", "))
    return "\n\n".join(chosen)


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1], ids=["side information", "fusion"])
def test_the_page_is_what_the_command_prints(number, capsys):
    """Decimal numbers may differ in their last digits from one processor to another; all else is equal."""
    command, titles, shown = OUTPUT.findall(PAGE.read_text())[number]
    assert main(shlex.split(command)) == 0
    printed = parts_of(capsys.readouterr().out.strip(), titles or None)
    shown = shown.strip()
    again = f"docs/walkthrough.md is not what `resight {command}` prints: put its output there"
    assert DECIMALS.sub("#", printed) == DECIMALS.sub("#", shown), again
    for now, before in zip(DECIMALS.findall(printed), DECIMALS.findall(shown), strict=True):
        assert float(now.replace(",", "")) == pytest.approx(float(before.replace(",", "")), rel=0.06, abs=2e-3), again
