"""Figures and shapes as people read them; and a walkthrough as text for a terminal."""

import textwrap

from resight.report.walkthrough.value import Step, Walkthrough

_WIDTH = 110  # characters of a line


def shape_text(step: Step) -> str:
    """Return a shape such as `[12, 197, 768]`; empty without one."""
    return "" if step.shape is None else f"[{', '.join(map(str, step.shape))}]"


def axes_text(step: Step) -> str:
    """Return the names of the axes such as `[R, T, D]`; an axis without a name is its length, and empty without any."""
    if not any(step.axes):
        return ""
    return f"[{', '.join(n or str(size) for n, size in zip(step.axes, step.shape or (), strict=True))}]"


def number_text(value: float) -> str:
    """Return a number with four significant digits; a whole one in groups of three digits."""
    return f"{value:,.0f}" if float(value).is_integer() and abs(value) >= 1 else f"{value:.4g}"


def details(step: Step) -> dict[str, str]:
    """Return what else is known of a step, by name: figures, values, parameters, MFLOPs, gradient."""
    texts = {name: number_text(value) for name, value in step.figures.items()}
    if step.content is not None:
        texts["values"] = _content(step.content)
    if step.parameters:
        texts["parameters"] = f"{step.parameters:,}"
    if step.flops:
        texts["MFLOPs"] = f"{step.flops / 1e6:,.1f}"
    if step.gradient is not None:
        texts["gradient"] = f"{step.gradient:.2g}"
    return texts


def explanation(walkthrough: Walkthrough) -> list[str]:
    """Return the sentences that a reader needs before the first step."""
    return [
        f"One step of training and one evaluation of the recipe `{walkthrough.recipe}` "
        f"({walkthrough.backbone}, {walkthrough.parameters:,} parameters, {walkthrough.flops / 1e9:.2f} GFLOPs for one "
        "image), with random weights, on synthetic images; every shape and figure was measured by hooks while it ran.",
        walkthrough.form,
        "MFLOPs are of a forward pass of one image, in a fusion of one sighting; a multiply-add counts as two. The "
        "gradient is the Euclidean norm of the loss's gradient on the tensor, or on the parameters of a group.",
    ]


def as_text(walkthrough: Walkthrough) -> str:
    """Return a walkthrough as text of at most 110 characters a line, without a final newline."""
    lines = [f"{walkthrough.recipe}: {walkthrough.backbone}", ""]
    for sentence in explanation(walkthrough):
        lines += textwrap.wrap(sentence, _WIDTH)
    lines += ["", *(f"  {axis.letter} = {axis.size:<6}{axis.meaning}" for axis in walkthrough.axes)]
    for number, section in enumerate(walkthrough.sections, start=1):
        heading = f"{number}. {section.title}"
        lines += ["", heading, "-" * len(heading), *textwrap.wrap(section.text, _WIDTH)]
        for step in section.steps:
            shape = "  ".join(part for part in (axes_text(step), shape_text(step), step.dtype) if part)
            lines += ["", f"  {step.name:<32}{shape}".rstrip()]
            lines += textwrap.wrap(step.text, _WIDTH, initial_indent="      ", subsequent_indent="      ")
            known = "; ".join(f"{name} {value}" for name, value in details(step).items())
            lines += textwrap.wrap(known, _WIDTH, initial_indent="      ", subsequent_indent="        ")
            lines.append(f"      {step.source}")
    return "\n".join(lines)


def _content(content: list[int] | list[float] | list[list[int]] | list[list[float]]) -> str:
    rows = [f"[{', '.join(map(_value, row))}]" if isinstance(row, list) else _value(row) for row in content]
    return f"[{', '.join(rows)}]"


def _value(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.3f}"
