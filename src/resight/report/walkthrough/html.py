"""A walkthrough as one HTML page that needs nothing else: no script, no font and no picture from elsewhere."""

from base64 import b64encode
from html import escape
from pathlib import Path

from resight.report.walkthrough.axes import MEANINGS
from resight.report.walkthrough.text import details, explanation, number_text
from resight.report.walkthrough.value import Section, Step, Walkthrough

_HUES = {letter: round(n * 360 / len(MEANINGS)) for n, letter in enumerate(MEANINGS)}  # degrees of the colour circle


def as_html(walkthrough: Walkthrough) -> str:
    """Return a walkthrough as an HTML page for light and dark screens, without a final newline."""
    style = Path(__file__).with_name("walkthrough.css").read_text(encoding="utf-8")
    title = escape(f"{walkthrough.recipe}, tensor by tensor")
    links = [f'<a href="#s{n}">{n}. {escape(s.title)}</a>' for n, s in enumerate(walkthrough.sections, start=1)]
    paragraphs = [f"<p>{_code(sentence)}</p>" for sentence in explanation(walkthrough)]
    sections = [_section(n, s, walkthrough) for n, s in enumerate(walkthrough.sections, start=1)]
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            f"<title>{title}</title>",
            f"<style>\n{style}</style></head><body>",
            f'<nav aria-label="Parts">{"".join(links)}</nav>',
            f"<main><h1>{title}</h1>",
            *paragraphs,
            _legend(walkthrough),
            *sections,
            "</main></body></html>",
        ]
    )


def _legend(walkthrough: Walkthrough) -> str:
    rows = [f"<li>{_chip(axis.letter, axis.size)} {escape(axis.meaning)}</li>" for axis in walkthrough.axes]
    return f'<ul class="legend" aria-label="Letters of the shapes">{"".join(rows)}</ul>'


def _section(number: int, section: Section, walkthrough: Walkthrough) -> str:
    thumbnails = _thumbnails(walkthrough) if number == 1 and walkthrough.thumbnails else ""
    steps = "".join(map(_step, section.steps))
    heading = f'<h2 id="s{number}">{number}. {escape(section.title)}</h2>'
    return f"<section>{heading}<p>{escape(section.text)}</p>{thumbnails}<ol>{steps}</ol></section>"


def _step(step: Step) -> str:
    known = details(step)
    values = known.pop("values", "")
    facts = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in known.items())
    shape = "" if step.shape is None else f'<div class="shape">{_chips(step)}<small>{step.dtype}</small></div>'
    parts = [
        f"<header><h3>{escape(step.name)}</h3>{shape}</header>",
        f"<p>{_code(step.text)}</p>",
        _grid(step) if values else "",
        f"<dl>{facts}</dl>" if facts else "",
        f"<code>{escape(step.source)}</code>" if step.source else "",
    ]
    return f"<li>{''.join(parts)}</li>"


def _chips(step: Step) -> str:
    axes = step.axes or ("",) * len(step.shape or ())
    return "".join(_chip(name, size) for name, size in zip(axes, step.shape or (), strict=True))


def _chip(name: str, size: int) -> str:
    """An axis: its name, coloured by its letter, and its size."""
    letter = next((part for part in reversed(name.split()) if part in _HUES), "")
    label = f"<b>{escape(name)}</b> " if name and name != str(size) else ""
    colour = f' style="--hue:{_HUES[letter]}"' if letter else ""
    return f'<span class="axis{"" if letter else " plain"}"{colour}>{label}{size}</span>'


def _grid(step: Step) -> str:
    """The values of a small tensor; the greater a number within its tensor, the darker its cell."""
    content = step.content or []
    rows = [row if isinstance(row, list) else [row] for row in content]
    if content and not isinstance(content[0], list):
        rows = [[value for row in rows for value in row]]
    values = [value for row in rows for value in row]
    low, high = min(values), max(values)
    lines = []
    for row in rows:
        cells = [f'<td style="--share:{(value - low) / ((high - low) or 1):.2f}">{_value(value)}</td>' for value in row]
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return f'<table aria-label="{escape(step.name)}">{"".join(lines)}</table>'


def _value(value: float) -> str:
    return number_text(value) if isinstance(value, int) else f"{value:.2f}"


def _thumbnails(walkthrough: Walkthrough) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in walkthrough.modalities)
    rows = []
    for number, sighting in enumerate(walkthrough.thumbnails, start=1):
        cells = "".join(f"<td>{_picture(number, n, png, walkthrough)}</td>" for n, png in enumerate(sighting))
        rows.append(f"<tr><th>sighting {number}</th>{cells}</tr>")
    return f'<table class="pictures"><tr><td></td>{head}</tr>{"".join(rows)}</table>'


def _picture(sighting: int, modality: int, png: bytes | None, walkthrough: Walkthrough) -> str:
    if png is None:
        return '<div class="absent">absent</div>'
    words = escape(f"{walkthrough.modalities[modality]} image of sighting {sighting}")
    return f'<img alt="{words}" src="data:image/png;base64,{b64encode(png).decode()}">'


def _code(sentence: str) -> str:
    """A sentence in which what stands between backticks is code."""
    parts = escape(sentence).split("`")
    return "".join(f"<code>{part}</code>" if n % 2 else part for n, part in enumerate(parts))
