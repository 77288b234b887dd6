"""`resight evaluate`."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tyro.conf import OmitArgPrefixes, Positional

from resight.cli.parsing import parse, print_rows, print_scores
from resight.config.sections import Evaluation, Precision
from resight.data.catalog import read
from resight.data.sightings import SightingTable
from resight.errors import ConfigError
from resight.files import write_file
from resight.inference.embeddings import is_embeddings, load, save

if TYPE_CHECKING:
    from resight.evaluation.evaluate import Result


@dataclass(frozen=True)
class Evaluate:
    """Measure a model on a data set, or embeddings that are on disk: CMC, mAP, mINP."""

    source: Positional[Path]
    """A model's folder, such as runs/NAME/best; or a folder of embeddings, written by --save."""
    settings: OmitArgPrefixes[Evaluation] = field(default_factory=Evaluation)
    dataset: str | None = None
    """A data set of the catalog. Embeddings bring their own."""
    root: Path | None = None
    """Its folder (or table)."""
    precision: Precision = "auto"
    """Arithmetic of the model's matrix products; ranking is exact."""
    device: str = "auto"
    """Where to embed and, on a GPU, to rank."""
    on_corrupt: Literal["error", "skip"] = "error"
    """What to do about pictures that cannot be decoded."""
    cameras: bool = False
    """Also show each pair of cameras: the queries of one against the pictures of the other alone."""
    open_set: bool = False
    """Also show how well a threshold tells whom the gallery knows: TAR at FAR, equal error rate, DIR at FPIR."""
    json: Path | None = None
    """Write all figures there, those of each query too (for `resight compare`)."""
    strip: Path | None = None
    """Write a rank strip there, as PNG: it shows the pictures themselves."""
    save: Path | None = None
    """Write the embeddings there, a new folder, so that they can be measured again in another way."""
    half: bool = False
    """Write them in float16: half the size, mAP the same to about 1e-4."""


def run(arguments: list[str]) -> None:
    """Embeds where that is to be done, ranks, and prints what was done in words and the figures in tables."""
    options = parse(Evaluate, arguments, "resight evaluate")
    from resight.evaluation.result import camera_pairs, figures, in_words

    if options.half and options.save is None:
        raise ConfigError("--half says how --save writes; give --save FOLDER too")
    if options.save is not None and options.save.exists():
        raise ConfigError(f"--save {options.save} exists already and is not written over; choose another")
    name, result = _measure_stored(options) if is_embeddings(options.source) else _measure_model(options)
    for line in in_words(result):
        print(line)
    found = figures(result, name)
    print_scores(name, result.summary(), result.spread() if len(result.trials) > 1 else None)
    print("95 % intervals over query identities: " + _intervals(found["interval_95"]))
    if options.cameras:
        found["camera_pairs"] = camera_pairs(result)
        print_rows("camera pairs, worst first", found["camera_pairs"])
    if options.open_set:
        found["open_set"] = _open_set(result)
    if options.json is not None:
        found["settings"] = options.settings.model_dump()
        write_file(options.json, json.dumps(found, indent=2) + "\n")
    if options.strip is not None:
        from resight.report.strips import rank_strip, save_picture

        save_picture(rank_strip(result), options.strip)
        print(f"rank strip: {options.strip}")
    if options.save is not None:
        about = {"dataset": name, "protocol": result.protocol.name, "source": str(options.source)}
        save(options.save, result.query, result.gallery, about, options.half)
        print(f"embeddings: {options.save}")


def _measure_model(options: Evaluate) -> tuple[str, Result]:
    from resight.device import pick_device, resolve_compute
    from resight.evaluation.checks import require_match, without_corrupt
    from resight.evaluation.evaluate import evaluate
    from resight.models.checkpoint import load_model
    from resight.progress import Progress

    if options.dataset is None or options.root is None:
        raise ConfigError(f"{options.source} is a model: say what to measure it on with --dataset NAME --root FOLDER")
    model, card = load_model(options.source)
    model.to(pick_device(options.device))
    with Progress() as progress:
        measured = replace(read(options.dataset, options.root), train=SightingTable())  # training pictures have no part
        split, skipped = without_corrupt(measured, options.on_corrupt, progress)
        require_match(split, options.settings)
        for note in (*split.notes, *skipped):
            progress.log(note)
        compute = resolve_compute(next(model.parameters()).device, options.precision, options.settings.batch)
        progress.log(compute.describe(card.preprocessing.size))
        progress.start(f"embedding {split.name}", split.tested)
        settings = (card.vocabulary, card.preprocessing, options.settings, options.precision)
        return split.name, evaluate(model, split, *settings, progress.update)


def _measure_stored(options: Evaluate) -> tuple[str, Result]:
    from resight.device import pick_device
    from resight.evaluation.evaluate import measure_embedded

    if options.dataset is not None or options.root is not None:
        raise ConfigError(
            f"{options.source} holds embeddings, which bring their own data set; leave --dataset and --root out"
        )
    query, gallery, about = load(options.source)
    device = "cuda" if pick_device(options.device).type == "cuda" else "cpu"
    result = measure_embedded(query, gallery, options.settings, str(about.get("protocol", "market")), device)
    return str(about.get("dataset", options.source.name)), result


def _open_set(result: Result) -> dict[str, Any]:
    from resight.retrieval.open_set import open_set
    from resight.retrieval.scores import InnerProducts

    first = result.trials[0].rankings[0]
    similarity = InnerProducts(result.query.vectors[first.query], result.gallery.vectors[first.gallery])
    keys = (result.query_labels.take(first.query), result.gallery_labels.take(first.gallery))
    found = open_set(similarity, *keys, result.rule)
    who = (
        "every query has a match, so each is asked again as a stranger, its own identity left out of the gallery"
        if found.non_mated.left_out
        else f"{len(found.non_mated.stranger)} queries without a match are the strangers"
    )
    same, different = int(found.pairs.same.sum()), int(found.pairs.different.sum())
    print(f"open set: {same} pairs of one identity, {different} of different ones; {who}")
    summary = found.summary()
    print_rows("open set", [{"figure": k, "rate": v, "threshold": t} for k, v, t in _with_thresholds(summary)])
    return summary | {"ROC": found.pairs.curve()}


def _with_thresholds(summary: dict[str, float]) -> list[tuple[str, float, float]]:
    rows = [("EER", summary["EER"], summary["EER threshold"])]
    for name, value in summary.items():
        kind, _, rate = name.partition("@")
        if kind in ("TAR", "DIR"):
            rows.append((name, value, summary[f"threshold@{rate}"]))
    return rows


def _intervals(found: dict[str, list[float]]) -> str:
    return ", ".join(f"{name} {100 * low:.1f} to {100 * high:.1f}" for name, (low, high) in found.items())
