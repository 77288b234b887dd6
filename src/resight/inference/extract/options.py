"""Options of an extraction."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from resight.config.folder import FolderOptions
from resight.config.scaling import Scaling
from resight.config.sections import Embedding, Fusion, Precision, UnknownSideInfo
from resight.errors import ConfigError

_OF_MODEL = ("device", "precision", "flip", "fusion", "unknown", "batch_size", "compile", "scaling")
_OF_VIDEO = ("min_confidence", "modality", "start")
_OF_FOLDER = ("camera", "filename_pattern", "modalities", "allow_missing_modalities")


@dataclass(frozen=True)
class ExtractOptions:
    """How an extraction loads the model, reads the source and stores the rows; every field has a default."""

    device: str = "auto"
    """`cpu`, `cuda`, `cuda:1`, `mps`, or `auto`. This and the next seven are the arguments of `resight.load`."""
    precision: Precision | None = None
    flip: bool | None = None
    fusion: Fusion | None = None
    unknown: UnknownSideInfo | None = None
    batch_size: int | None = None
    compile: bool = False
    scaling: Scaling | None = None
    identity_from_folder: bool = False
    """Take the name of an image's folder as its identity."""
    boxes: str | Path | None = None
    """Boxes in the video that is the source: see `resight.data.boxes.read_boxes`."""
    min_confidence: float | None = None
    """Lowest confidence of a box to embed."""
    camera: str | None = None
    """Camera of the video, or of all images of files and folders. This and the next three are the fields of
    `resight.FolderOptions`."""
    filename_pattern: str | None = None
    modalities: tuple[str, ...] = ()
    allow_missing_modalities: bool = False
    modality: str | None = None
    """Modality of the video; None for rgb."""
    start: float = 0.0
    """Start time of the video, in seconds on a clock that all cameras share."""
    on_corrupt: Literal["error", "skip"] = "skip"
    """What to do with a sighting whose images cannot be decoded."""
    ray: str | None = None
    """Address of a Ray cluster to extract on, or `local`."""
    shard: int = 1024
    """Rows of a shard: what is lost, at most, when a process is stopped."""

    def check(self, workers: int) -> None:
        """Check ranges and combinations.

        Raises:
            ConfigError: a value is out of range, or options exclude each other.
        """
        if workers < 1:
            raise ConfigError(f"--workers must be 1 or more, not {workers}")
        if self.ray is not None and workers > 1:
            raise ConfigError("--workers and --ray exclude each other: leave one out")
        if self.shard < 1:
            raise ConfigError(f"a shard has 1 row or more, not {self.shard}")
        if self.on_corrupt not in ("error", "skip"):
            raise ConfigError(f"--on-corrupt is error or skip, not {self.on_corrupt!r}")
        changed = self._changed(_OF_VIDEO)
        if self.boxes is None and changed:
            name = changed[0].replace("_", "-")
            raise ConfigError(f"--{name} is for a video with --boxes; a table states it for images")
        if self.boxes is not None and self.identity_from_folder:
            raise ConfigError("--boxes needs one video as the only source, without --identity-from-folder")
        if self.boxes is not None and self.folder.changed_options not in ([], ["--camera"]):
            raise ConfigError(f"{self.folder.changed_options[-1]} is for folders of images, and --boxes for a video")

    @property
    def folder(self) -> FolderOptions:
        """How image files become sightings.

        Raises:
            ConfigError: the pattern is invalid, or two options state the same.
        """
        return FolderOptions().changed(**{name: getattr(self, name) for name in _OF_FOLDER})

    @property
    def of_model(self) -> dict[str, Any]:
        """The arguments of `resight.load`."""
        return {name: getattr(self, name) for name in _OF_MODEL}

    def check_for_embedder(self) -> None:
        """Check that no option of loading is set, for a model that is loaded already.

        Raises:
            ConfigError: one is set.
        """
        changed = self._changed(_OF_MODEL)
        if changed:
            raise ConfigError(f"the model is loaded already: pass {changed[0]} to resight.load, not to the extraction")

    def override(self, settings: Embedding) -> Embedding:
        """Return a model card's section `embedding`, changed by the options that are not None."""
        names = ("precision", "flip", "fusion", "unknown", "batch_size", "scaling")
        changes = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return settings.changed(**changes)

    def _changed(self, names: tuple[str, ...]) -> list[str]:
        return [
            field.name for field in fields(self) if field.name in names and getattr(self, field.name) != field.default
        ]
