"""Figures that were measured, as a page of a published model prints them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import ConfigDict, Field, ValidationError

from resight.config.section import Section, explain
from resight.errors import ConfigError

Rate = Annotated[float, Field(ge=0, le=1)]


class Figures(Section):
    """The fields of a file of `resight evaluate --figures`, or of a run's `result.json`, that a page prints."""

    model_config = ConfigDict(extra="ignore")

    dataset: str
    protocol: str
    queries: int
    gallery: int
    embedding_id: str
    mAP: Rate  # noqa: N815
    mINP: Rate | None = None  # noqa: N815
    R1: Rate
    R5: Rate | None = None
    R10: Rate | None = None
    interval_95: Mapping[str, tuple[float, float]] = {}


def read_figures(file: Path, embedding_id: str) -> Figures:
    """Read measured figures, and check that they are of this model's embeddings.

    Raises:
        ConfigError: it is no such file, or the figures are of other embeddings.
    """
    try:
        read = Figures.model_validate(json.loads(file.read_bytes()))
    except OSError as error:
        raise ConfigError(f"the figures {file} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise ConfigError(f"{file} is no file of resight evaluate --figures: {explain(error)}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{file} is no file of resight evaluate --figures: it is no JSON") from error
    if read.embedding_id != embedding_id:
        raise ConfigError(
            f"{file} is of embeddings {read.embedding_id}, and the model's are {embedding_id}: evaluate this model "
            "with the settings of its card"
        )
    return read
