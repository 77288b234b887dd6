"""`resight evaluate`."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from resight.cli.parsing import parse, print_scores
from resight.config import Evaluation, JunkRule, Precision
from resight.datasets.catalog import read
from resight.sightings import SightingTable
from resight.storage import write_file


@dataclass(frozen=True)
class Evaluate:
    """Measure a model on a data set: CMC, mAP, mINP."""

    model: Positional[Path]
    """A model's folder, such as runs/NAME/best."""
    dataset: str
    """A data set of the catalog."""
    root: Path
    """Its folder (or table)."""
    junk: JunkRule = "same-camera"
    """Gallery items left out of a query's ranking."""
    fusion: Literal["concat", "mean"] = "concat"
    """How the embeddings of one sighting's modalities become one: side by side, which compares each modality with
    itself, or their mean, which also compares one modality with another."""
    flip: bool = False
    """Mean of the picture's and its mirror image's embedding."""
    rerank: bool = False
    """Rank by k-reciprocal neighbours (k1 20, k2 6, lambda 0.3)."""
    batch: int = 64
    """Pictures embedded at once."""
    precision: Precision = "fp32"
    """Arithmetic of the matrix products; ranking is in float32."""
    device: str = "auto"
    """Where to embed."""
    damaged: Literal["refuse", "skip"] = "refuse"
    """What to do about pictures that cannot be decoded."""
    json: Path | None = None
    """Write the figures there."""
    strip: Path | None = None
    """Write a rank strip there, as PNG: it shows the pictures themselves."""


def run(arguments: list[str]) -> None:
    """Embeds, ranks, and prints the figures in words and in a table."""
    options = parse(Evaluate, arguments, "resight evaluate")
    from resight.embed import pick_device
    from resight.evaluate import evaluate
    from resight.model.folder import load_model
    from resight.prepare import require_match, without_damaged
    from resight.report.strips import rank_strip, save_picture
    from resight.screen import Screen

    model, card = load_model(options.model)
    settings = Evaluation(
        junk=options.junk, fusion=options.fusion, flip=options.flip, rerank=options.rerank, batch=options.batch
    )
    model.to(pick_device(options.device))
    with Screen() as screen:
        measured = replace(read(options.dataset, options.root), train=SightingTable())  # training pictures have no part
        split, skipped = without_damaged(measured, options.damaged, screen)
        require_match(split, options.junk)
        for note in (*split.notes, *skipped):
            screen.say(note)
        screen.begin(f"embedding {split.name}", split.tested)
        result = evaluate(
            model,
            split.query,
            split.gallery,
            card.vocabulary,
            card.pictures,
            settings,
            options.precision,
            screen.step,
        )
    metrics = result.metrics
    print(
        f"{len(split.query)} queries against {len(split.gallery)} gallery sightings, junk rule {options.junk}"
        f"{', re-ranked' if options.rerank else ''}; "
        f"{metrics.unmatched} queries without a match left out ({metrics.unmatched_by_rule} by the rule)"
    )
    print_scores(split.name, metrics.summary())
    if options.json is not None:
        figures = {"dataset": split.name, "queries": len(split.query), "gallery": len(split.gallery)}
        figures |= metrics.summary() | {"cmc": metrics.cmc.tolist(), "unmatched": metrics.unmatched}
        write_file(options.json, json.dumps(figures | {"settings": settings.model_dump()}, indent=2) + "\n")
    if options.strip is not None:
        save_picture(rank_strip(split.query, split.gallery, result), options.strip)
        print(f"rank strip: {options.strip}")
