"""Publish a model on the Hugging Face Hub."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from resight.config.run import Run, read_run
from resight.errors import ConfigError
from resight.models.calibration import CALIBRATION, read_calibration
from resight.models.checkpoint import CARD, WEIGHTS, embedding_id, load_model
from resight.models.hub.address import parse_repository, require_revision
from resight.models.hub.download import PAGE
from resight.models.hub.upload import upload_files
from resight.report.measured_figures import Figures, read_figures
from resight.report.model_page import Details, PageContent, write_page

_RESULT = "result.json"


@dataclass(frozen=True)
class Publication:
    """What was published, or would be."""

    repository: str
    """ORG/NAME."""
    url: str | None
    """The page of the commit; None where nothing was uploaded."""
    files: dict[str, int]
    """Bytes of each file, by its name in the repository."""
    page: str
    """The content of README.md."""


def push(
    folder: str | Path,
    repository: str,
    private: bool = False,
    revision: str | None = None,
    message: str | None = None,
    details: Details | None = None,
    figures: Sequence[str | Path] = (),
    dry_run: bool = False,
) -> Publication:
    """Publish a model folder on the Hugging Face Hub, with a page that describes it.

    Uploaded are `model.safetensors`, `config.json` (which has the names of the identities and cameras of the training),
    `calibration.json` where the model has one, and the page `README.md`; nothing else of the folder or the run. The
    page is the folder's `README.md`, or is written from the card, the run's configuration and the figures.

    Args:
        folder: a model folder, such as `runs/NAME/best`.
        repository: ORG/NAME; it is created if it does not exist.
        private: whether a repository that is created can be read by its owners alone.
        revision: the branch; it is created if it does not exist. None for main.
        message: of the commit.
        details: licence, intended use and limits for the page.
        figures: files of `resight evaluate --figures` of this model. Without any, those of the run, where the folder
            is the run's best checkpoint.
        dry_run: make the page and upload nothing.

    Raises:
        CheckpointError: the folder is no model folder, or a file of it is corrupt.
        ConfigError: a name is invalid, or figures are of other embeddings.
        StorageError: the Hub cannot be reached, or refuses the upload.

    Example:
        `resight.push("runs/mine/best", "my-org/vehicles", private=True)`
    """
    name = parse_repository(repository)
    if revision is not None:
        require_revision(revision)
    if message is not None and not message.strip():
        raise ConfigError("the message of a commit cannot be empty")
    path = Path(folder)
    content = _content(path, name, details or Details(), figures)
    stated = path / PAGE
    page = _read_text(stated) if stated.exists() else write_page(content)
    names = [WEIGHTS, CARD, *([CALIBRATION] if content.calibration is not None else [])]
    files = {name: path / name for name in names} | {PAGE: page.encode()}
    url = None
    if not dry_run:
        url = upload_files(name, files, message or f"Upload {path.resolve().name} with resight", revision, private)
    sizes = {name: len(f) if isinstance(f, bytes) else f.stat().st_size for name, f in files.items()}
    return Publication(name, url, sizes, page)


def _content(path: Path, repository: str, details: Details, figures: Sequence[str | Path]) -> PageContent:
    model, card = load_model(path)
    identifier = embedding_id(card.weights_sha256 or "", card, card.embedding)
    run_folder = path.resolve().parent.parent if path.resolve().parent.name == "checkpoints" else None
    measured = [read_figures(Path(file), identifier) for file in figures]
    if not measured and run_folder is not None:
        measured = _figures_of_run(run_folder, path, identifier)
    run = None if run_folder is None else _run(run_folder)
    return PageContent(repository, model, card, identifier, run, measured, read_calibration(path), details)


def _run(folder: Path) -> Run | None:
    """The configuration of a checkpoint's run; None where the folder above is no run."""
    file = folder / CARD
    return read_run(file) if file.exists() else None


def _figures_of_run(folder: Path, checkpoint: Path, identifier: str) -> list[Figures]:
    """The figures in `result.json`, which are those of the best checkpoint alone."""
    file = folder / _RESULT
    is_best = (folder / "best").resolve() == checkpoint.resolve()
    return [read_figures(file, identifier)] if is_best and file.exists() else []


def _read_text(file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} cannot be read as text of UTF-8") from error
