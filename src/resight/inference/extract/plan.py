"""The plan of an extraction: what all of its shards have in common, stored beside them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from resight.config.scaling import require_modalities
from resight.config.sections import Embedding, Precision, ResolvedPrecision, Section
from resight.device import pick_device, resolve_compute
from resight.errors import ConfigError
from resight.files import make_folder, replacing, storing
from resight.inference.embedder import Embedder
from resight.inference.embeddings import EmbeddingsInfo
from resight.inference.exported import is_exported
from resight.inference.extract.options import ExtractOptions
from resight.inference.extract.sources import Source
from resight.inference.extract.tasks import ModelFolder
from resight.inference.load import load
from resight.models.checkpoint import ModelCard, effective_fusion, embedding_id
from resight.models.hub.download import local_folder
from resight.models.open_model import open_card

_FORMAT: Final = 2
_FILE: Final = "plan.json"


class Plan(Section):
    """What changes a row or a vector. Shards of different plans are not joined into one file.

    The batch size and the number of workers are not part of it: a run that had too little memory resumes with less.
    """

    format: int = _FORMAT
    info: EmbeddingsInfo
    source: str
    """The digest of the source: every row and column."""
    device: str
    """`cpu`, `cuda` or `mps`: between them, vectors differ by rounding."""
    precision: Precision
    """As configured."""
    resolved_precision: ResolvedPrecision
    """As resolved when the extraction began."""
    compile: bool
    shard: int


@dataclass(frozen=True)
class ResolvedModel:
    """The model of an extraction."""

    model: Embedder | ModelFolder
    card: ModelCard
    settings: Embedding
    embedding_id: str
    device: str
    precision: ResolvedPrecision
    description: str
    """Device, kind of processor, precision, image size and batch size, in one line."""

    def info(self) -> EmbeddingsInfo:
        """Return what the file of embeddings states."""
        fusion = effective_fusion(self.settings.fusion, self.card.model)
        return EmbeddingsInfo(embedding_id=self.embedding_id, fusion=fusion, modalities=self.card.vocabulary.modalities)

    def check(self, source: Source) -> None:
        """Raise a ConfigError if the source has a modality that the model does not know."""
        unknown = sorted(set(source.modalities) - set(self.card.vocabulary.modalities))
        if unknown:
            raise ConfigError(
                f"the model knows no modality {unknown[0]!r}, only {', '.join(self.card.vocabulary.modalities)}"
            )


def resolve_model(model: Embedder | str | Path, options: ExtractOptions, several: bool, parts: Path) -> ResolvedModel:
    """Return the model with its settings and its precision: that of the stored plan, where a run is resumed.

    Args:
        model: an embedder, or a model folder.
        options: of the extraction.
        several: whether other processes load the model.
        parts: the folder of the plan.

    Raises:
        CheckpointError: the folder is no model folder.
        ConfigError: options exclude each other, or other processes cannot load the embedder's model.
    """
    if isinstance(model, Embedder):
        options.check_for_embedder()
        return _of_embedder(model, several)
    folder = local_folder(model).absolute()
    if is_exported(folder):
        return _of_embedder(load(folder, **options.of_model), several)
    card = open_card(folder)
    settings = options.override(card.embedding)
    require_modalities(settings.scaling, card.vocabulary.modalities)
    device = pick_device(options.device)
    stored = _stored(parts)
    precision = stored.resolved_precision if stored is not None else settings.precision
    compute = resolve_compute(device, precision, settings.batch_size)
    source = ModelFolder(
        folder, options.device, compute.precision, settings.flip, settings.fusion, settings.unknown,
        settings.batch_size, options.compile, tuple(settings.scaling.items()),
    )  # fmt: skip
    identifier = embedding_id(card.weights_sha256 or "", card, settings)
    description = compute.describe(card.preprocessing.size)
    return ResolvedModel(source, card, settings, identifier, device.type, compute.precision, description)


def _of_embedder(embedder: Embedder, several: bool) -> ResolvedModel:
    settings, precision = embedder.settings, embedder.compute.precision
    model: Embedder | ModelFolder = embedder
    if several:
        if embedder.folder is None:
            raise ConfigError("other processes load a model from its folder, and this embedder has none: use 1 worker")
        model = ModelFolder(
            embedder.folder.absolute(), str(embedder.device), precision, settings.flip, settings.fusion,
            settings.unknown, embedder.batch_size, scaling=tuple(settings.scaling.items()),
        )  # fmt: skip
    return ResolvedModel(
        model, embedder.card, settings, embedder.embedding_id, embedder.device.type, precision, embedder.description
    )


def store_plan(resolved: ResolvedModel, source: Source, options: ExtractOptions, parts: Path) -> Plan:
    """Write the plan of a new extraction, or check that of one that is resumed.

    Raises:
        ConfigError: the stored plan differs.
        StorageError: the plan cannot be written.
    """
    plan = Plan(
        info=resolved.info(), source=source.digest(), device=resolved.device, precision=resolved.settings.precision,
        resolved_precision=resolved.precision, compile=options.compile, shard=options.shard,
    )  # fmt: skip
    make_folder(parts.parent)
    with storing(parts):
        parts.mkdir(mode=0o700, exist_ok=True)
        parts.chmod(0o700)
    stored = _stored(parts)
    if stored is None:
        with replacing(parts / _FILE, private=True) as file:
            file.write(plan.model_dump_json(indent=2).encode())
    elif stored != plan:
        raise _refused(parts)
    return plan


def _stored(parts: Path) -> Plan | None:
    file = parts / _FILE
    try:
        return Plan.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise _refused(parts) from error


def _refused(parts: Path) -> ConfigError:
    return ConfigError(
        f"{parts} was started with other images, another model or other settings; delete it, or use another name"
    )
