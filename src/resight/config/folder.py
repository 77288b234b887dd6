"""The section of a folder of images: what a table would state in its columns."""

import re
from typing import Final

from pydantic import ConfigDict, field_validator, model_validator

from resight.config.section import Section

GROUPS: Final = ("identity", "camera", "view", "scene", "clothes", "tracklet", "time", "modality", "split")
"""Names of groups in a pattern of file names; they are the columns of a table."""


class FolderOptions(Section):
    """How the image files of a folder become sightings. A table states the same in its columns."""

    model_config = ConfigDict(title="options of a folder")

    camera: str | None = None
    """Camera of all images of the folder."""
    filename_pattern: str | None = None
    """Regular expression with named groups, the labels in the path of each image relative to its folder, such as
    `(?P<identity>\\d+)_c(?P<camera>\\d+)`. Groups: identity, camera, view, scene, clothes, tracklet, time (seconds),
    modality, split. Every image must match, at any position unless ^ or $ is used; an empty group is unknown."""
    modalities: tuple[str, ...] = ()
    """Folders of one modality each, with the same file names inside (suffixes may differ): files of the same name are
    one sighting. Without this option, a folder that contains only rgb, nir or tir is read in this way."""
    allow_missing_modalities: bool = False
    """Accept sightings that have no image in one of the folders of modalities."""

    @field_validator("filename_pattern")
    @classmethod
    def _names_labels(cls, pattern: str | None) -> str | None:
        if pattern is None:
            return None
        try:
            groups = re.compile(pattern).groupindex
        except (re.error, OverflowError, RecursionError) as error:
            raise ValueError(f"{pattern!r:.120} is no regular expression: {error}") from error
        unknown = [name for name in groups if name not in GROUPS]
        if unknown:
            raise ValueError(f"the group {unknown[0]!r:.60} is not one of {', '.join(GROUPS)}")
        if not groups:
            raise ValueError(
                f"{pattern!r:.120} has no named group, such as (?P<camera>...); known: {', '.join(GROUPS)}"
            )
        return pattern

    @model_validator(mode="after")
    def _states_once(self) -> "FolderOptions":
        groups = self.groups
        if self.camera is not None and "camera" in groups:
            raise ValueError("camera is stated by --camera and by the pattern: leave one out")
        if self.modalities and "modality" in groups:
            raise ValueError("modality is stated by --modalities and by the pattern: leave one out")
        if len(set(self.modalities)) < len(self.modalities):
            raise ValueError("--modalities names a folder twice")
        return self

    @property
    def groups(self) -> tuple[str, ...]:
        """The labels that the pattern states."""
        return () if self.filename_pattern is None else tuple(re.compile(self.filename_pattern).groupindex)

    @property
    def changed_options(self) -> list[str]:
        """The options that differ from their defaults, as they are written on the command line."""
        names = [name for name, field in type(self).model_fields.items() if getattr(self, name) != field.default]
        return [f"--{name.replace('_', '-')}" for name in names]
