"""The page of a published model: Markdown with the Hub's front matter, from its card and from measured figures."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import Field

from resight.config.run import Run
from resight.config.section import Section
from resight.models.checkpoint import ModelCard, effective_fusion
from resight.models.transreid import TransReID
from resight.progress import counted, percent
from resight.report.measured_figures import Figures
from resight.retrieval.calibration import Calibration

_METRICS: Final = {"mAP": "mAP", "mINP": "mINP", "R1": "Rank-1", "R5": "Rank-5", "R10": "Rank-10"}
_USE: Final = (
    "Ranking images of a gallery by how likely they show the same object as a query image, for objects and cameras "
    "like those of its training. An answer is a candidate that a person has to check."
)
_LIMITS: Final = (
    "Figures hold for the data sets and protocols they were measured with; other cameras, places or kinds of objects "
    "need an evaluation of their own. A similarity is no probability without a calibration, and proves no identity."
)


class Details(Section):
    """What a page states that no file of the model has. What is None is left out, or said to be not stated."""

    licence: str | None = Field(default=None, pattern=r"^[a-z0-9][a-z0-9.+-]*$", max_length=80)
    """The licence of the weights by the Hub's name, such as mit, apache-2.0, cc-by-nc-4.0 or other."""
    intended_use: str | None = Field(default=None, min_length=1, max_length=10_000)
    """What the model is for; None for a general sentence."""
    limits: str | None = Field(default=None, min_length=1, max_length=10_000)
    """What it cannot do, or must not be used for, besides what holds for every model."""


@dataclass(frozen=True)
class PageContent:
    """What a page is made of."""

    repository: str
    """ORG/NAME."""
    model: TransReID
    card: ModelCard
    embedding_id: str
    run: Run | None
    """The training; None where it is not known, such as for a converted model."""
    figures: Sequence[Figures]
    calibration: Calibration | None
    details: Details


def write_page(content: PageContent) -> str:
    """Return the page, in Markdown with YAML front matter. A figure that was not measured is not on it."""
    front = yaml.safe_dump(_front_matter(content), sort_keys=False, allow_unicode=True)
    sections = [
        _introduction(content), _use(content), _network(content), _training(content), _figures(content),
        _calibration(content), f"## Intended use\n\n{content.details.intended_use or _USE}",
        _limits(content), _licence(content.details),
    ]  # fmt: skip
    return f"---\n{front}---\n\n" + "\n\n".join(section for section in sections if section) + "\n"


def _front_matter(content: PageContent) -> dict[str, Any]:
    front: dict[str, Any] = {"library_name": "resight", "pipeline_tag": "image-feature-extraction"}
    front["tags"] = ["re-identification", "image-retrieval", *(["multimodal"] if _modalities(content) > 1 else [])]
    if content.details.licence is not None:
        front["license"] = content.details.licence
    results = [
        {
            "task": {"type": "image-feature-extraction", "name": "Re-identification"},
            "dataset": {"type": _identifier(figures.dataset), "name": figures.dataset},
            "metrics": [
                {"type": name, "value": round(100 * value, 2), "name": f"{title} (%)"}
                for name, title in _METRICS.items()
                if (value := getattr(figures, name)) is not None
            ],
        }
        for figures in content.figures
    ]
    if results:
        front["model-index"] = [{"name": content.repository.partition("/")[2], "results": results}]
    return front


def _identifier(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "data"


def _introduction(content: PageContent) -> str:
    height, width = content.card.preprocessing.size
    return (
        f"# {content.repository.partition('/')[2]}\n\nA model for re-identification: the network "
        f"`{content.card.model.backbone}` makes an embedding of {_width(content)} of an image "
        f"({height}x{width} pixels). Made with Resight."
    )


def _use(content: PageContent) -> str:
    return (
        "## Use\n\n```python\nimport resight\n\n"
        f'embedder = resight.load("hf://{content.repository}")\n'
        'similarities = embedder.embed(["a.jpg", "b.jpg"]) @ embedder.embed("c.jpg").T\n```'
    )


def _network(content: PageContent) -> str:
    card = content.card
    images, settings, known = card.preprocessing, card.model, card.vocabulary
    millions = sum(parameter.numel() for parameter in content.model.backbone.parameters()) / 1e6
    rows = {
        "backbone": f"`{settings.backbone}`, {millions:.1f} million parameters",
        "images": f"{images.size[0]}x{images.size[1]} pixels, {images.test_interpolation} resizing",
        "mean, standard deviation": f"{_numbers(images.mean)}; {_numbers(images.std)}",
        "embedding": f"{_width(content)}, {settings.feature} BNNeck"
        + (", mean with the mirrored image" if card.embedding.flip else ""),
        "modalities": f"{', '.join(known.modalities)}, fused by {effective_fusion(card.embedding.fusion, settings)}"
        if _modalities(content) > 1
        else "",
        "side information (SIE)": ", ".join(settings.sie),
        "jigsaw patch module (JPM)": "yes" if settings.jpm else "",
        "embedding id": f"`{content.embedding_id}`",
    }
    return "## Model\n\n" + _table(("", ""), [(name, value) for name, value in rows.items() if value])


def _training(content: PageContent) -> str:
    known = content.card.vocabulary
    rows = list[tuple[str, str]]()
    if content.run is not None:
        run = content.run
        weights = None if run.weights is None else run.weights if ":" in run.weights else Path(run.weights).name
        rows += [("data set", run.dataset), ("recipe", f"`{run.recipe}`"), ("epochs", str(run.schedule.epochs))]
        rows += [("pre-trained weights", "none" if weights is None else f"`{weights}`"), ("seed", str(run.seed))]
    counts = {"identity": len(known.identities), "camera": len(known.cameras), "view": len(known.views)}
    plural = {"identity": "identities"}
    stated = [counted(count, kind, plural.get(kind, f"{kind}s")) for kind, count in counts.items() if count]
    if stated:
        rows.append(("labels", ", ".join(stated)))
    return "## Training\n\n" + _table(("", ""), rows) if rows else ""


def _figures(content: PageContent) -> str:
    if not content.figures:
        return ""
    names = [name for name in _METRICS if any(getattr(row, name) is not None for row in content.figures)]
    lines = list[tuple[str, ...]]()
    for row in content.figures:
        values = [(name, getattr(row, name)) for name in names]
        cells = ["" if value is None else percent(value) + _interval(row, name) for name, value in values]
        lines.append((row.dataset, row.protocol, f"{row.queries:,}", f"{row.gallery:,}", *cells))
    columns = ("data set", "protocol", "queries", "gallery", *(_METRICS[name] for name in names))
    note = "In brackets: the 95 % interval over the identities of the queries."
    return f"## Figures\n\n{_table(columns, lines)}\n\n{note}"


def _interval(figures: Figures, name: str) -> str:
    bounds = figures.interval_95.get(name)
    return "" if bounds is None else f" ({percent(bounds[0])} to {percent(bounds[1])})"


def _calibration(content: PageContent) -> str:
    calibration = content.calibration
    if calibration is None or calibration.embedding_id not in (None, content.embedding_id):
        return ""
    on = f" on {calibration.dataset}" if calibration.dataset else ""
    return (
        f"## Calibration\n\nFrom similarity to probability, fitted{on}; two images count as the same identity from a "
        f"similarity of {calibration.threshold:.4f}."
    )


def _limits(content: PageContent) -> str:
    texts = [content.details.limits, _LIMITS]
    if content.card.model.sie and content.card.embedding.unknown == "mean":
        texts.append(
            "Images of cameras or views that were not in training get the mean of the learned side information."
        )
    if not content.figures:
        texts.append("No figures were published with this model.")
    return "## Limits\n\n" + "\n\n".join(text for text in texts if text)


def _licence(details: Details) -> str:
    if details.licence is None:
        return "## Licence\n\nNot stated. The data sets of the training may restrict the use of the weights."
    return (
        f"## Licence\n\nThe weights: `{details.licence}`. The data sets of the training may restrict their use further."
    )


def _width(content: PageContent) -> str:
    """The numbers of an embedding, as `Embedder.width` has them."""
    fusion = effective_fusion(content.card.embedding.fusion, content.card.model)
    if fusion == "learned":
        return f"{content.model.fused_width} numbers"
    each = " for each modality" if fusion == "concat" and _modalities(content) > 1 else ""
    return f"{content.model.width} numbers{each}"


def _modalities(content: PageContent) -> int:
    return len(content.card.vocabulary.modalities)


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)
