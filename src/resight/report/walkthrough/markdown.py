"""A walkthrough as a Markdown page."""

from resight.report.walkthrough.text import axes_text, details, explanation, shape_text
from resight.report.walkthrough.value import Section, Step, Walkthrough


def as_markdown(walkthrough: Walkthrough) -> str:
    """Return a walkthrough as a Markdown page without a title, and without a final newline."""
    paragraphs = [*explanation(walkthrough), _letters(walkthrough)]
    for number, section in enumerate(walkthrough.sections, start=1):
        paragraphs += [f"## {number}. {section.title}", section.text, _table(section)]
    return "\n\n".join(paragraphs)


def _letters(walkthrough: Walkthrough) -> str:
    rows = [f"| {axis.letter} | {axis.size} | {axis.meaning} |" for axis in walkthrough.axes]
    return "\n".join(["| | | |", "|---|---:|---|", *rows])


def _table(section: Section) -> str:
    rows = [f"| {cell(_name(step))} | {_shape(step)} | {cell(_text(step))} |" for step in section.steps]
    return "\n".join(["| | Shape | What happens |", "|---|---|---|", *rows])


def cell(text: str) -> str:
    """Return a text that cannot end a table's cell."""
    return text.replace("|", "\\|")


def _name(step: Step) -> str:
    return f"**{step.name}**"


def _shape(step: Step) -> str:
    parts = [f"`{text}`" for text in (axes_text(step), shape_text(step)) if text]
    return "<br>".join([*parts, *([step.dtype] if step.dtype else [])])


def _text(step: Step) -> str:
    known = "; ".join(f"{name} {value}" for name, value in details(step).items())
    return "<br>".join(part for part in (step.text, known, f"`{step.source}`") if part)
