"""Checks before a long computation: corrupt pictures, and queries that nothing can match."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

from resight.config.evaluation import Evaluation
from resight.config.run import Run
from resight.config.scaling import Scaling, require_modalities
from resight.data.findings import refuse_overlap
from resight.data.image import corrupt
from resight.data.modalities import MODALITIES, ordered
from resight.data.picture_notes import PictureNotes
from resight.data.scaling import rules_of_files
from resight.data.sightings import SightingTable, Split
from resight.errors import DatasetError, PictureError
from resight.evaluation.evaluate import measured_by
from resight.evaluation.labels import encode_labels
from resight.progress import Progress, counted
from resight.retrieval.trials import require_any_match


def prepare(run: Run, split: Split, progress: Progress) -> Split:
    """Check a data set for training; leave out sightings without an identity and, as the run says, corrupt ones.

    Raises:
        ConfigError: a rule for more than 8 bits is for a modality that does not exist.
        DatasetError: there is nothing to train on, or an identity or a file is both in the training set and in the test
            set, and the run does not allow that.
        EvaluationError: no query has a match.
        PictureError: a picture is corrupt, and the run does not skip such.
    """
    require_modalities(run.preprocessing.scaling, ordered({*MODALITIES, *split.train.modalities}))
    if not run.allow_train_test_overlap:
        refuse_overlap(split)
    checked, notes = without_corrupt(split, run.on_corrupt, progress, run.preprocessing.scaling)
    learned = checked.train.of_identities(checked.train.values("identity"))
    if not len(learned):
        raise DatasetError(f"{split.name} has no training picture of a known identity")
    if len(learned) < len(checked.train):
        left_out = counted(len(checked.train) - len(learned), "training sighting")
        notes = (*notes, f"{left_out} without an identity left out")
    require_match(checked, run.evaluation)
    for note in (*checked.notes, *notes):
        progress.log(note)
    return replace(checked, train=learned, notes=(*checked.notes, *notes))


def without_corrupt(
    split: Split, policy: Literal["error", "skip"], progress: Progress, scaling: Scaling | None = None
) -> tuple[Split, tuple[str, ...]]:
    """Return the split without sightings that have a corrupt picture, and a note for each such picture, and for each
    kind of pictures of which something is left out or converted. `scaling` has the rules for more than 8 bits.

    Raises:
        PictureError: there is one, and the policy is `error`.
    """
    parts, picture_notes = (split.train, split.query, split.gallery), PictureNotes()
    files = sorted({path for part in parts for path in part.paths})
    progress.start("checking pictures", len(files))
    faults = corrupt(files, progress.update, rules_of_files(parts, scaling or {}), picture_notes)
    if not faults:
        return split, tuple(picture_notes.lines())
    if policy == "error":
        more = f" ({len(faults)} pictures are corrupt)" if len(faults) > 1 else ""
        raise PictureError(f"{faults[0][1]}{more}; replace it, or leave such pictures out with --on-corrupt skip")
    bad = {path for path, _ in faults}
    train, query = _without(split.train, bad), _without(split.query, bad)
    gallery = query if split.gallery is split.query else _without(split.gallery, bad)
    notes = (
        *(f"skipped: {reason}" for _, reason in faults),
        f"{counted(len(faults), 'corrupt picture')} skipped",
        *picture_notes.lines(),
    )
    return replace(split, train=train, query=query, gallery=gallery), notes


def size_line(split: Split) -> str:
    """Return the sizes of a test set as a line: what an evaluation of it embeds."""
    queries = counted(len(split.query), "query", "queries")
    if split.gallery is split.query:
        return f"{split.name}: {queries}, which are also the gallery"
    return f"{split.name}: {queries}, {counted(len(split.gallery), 'gallery sighting')}"


def require_match(split: Split, settings: Evaluation) -> None:
    """Make sure that at least one query has a match, before anything is embedded.

    Raises:
        ConfigError: there is no such protocol.
        EvaluationError: none has; says what the junk rule removed.
    """
    require_any_match(*measured_by(settings, split.protocol), *encode_labels(split.query, split.gallery))


def _without(table: SightingTable, bad: set[Path]) -> SightingTable:
    return table.take([row for row, sighting in enumerate(table) if not bad & set(sighting.images.values())])


def checked_for_evaluation(
    split: Split,
    settings: Evaluation,
    policy: Literal["error", "skip"],
    progress: Progress,
    scaling: Scaling | None = None,
) -> Split:
    """A data set without its training part, and without sightings that are corrupt; logs its notes. `scaling` has the
    rules for more than 8 bits.

    Raises:
        EvaluationError: no query has a match.
        PictureError: a picture is corrupt, and the policy is `error`.
    """
    split, skipped = without_corrupt(replace(split, train=SightingTable()), policy, progress, scaling)
    require_match(split, settings)
    for note in (*split.notes, *skipped):
        progress.log(note)
    return split
