"""The complete configuration of a run: frozen, validated, and unchanged by a round trip through JSON."""

from pathlib import Path
from typing import Annotated, Literal

import tyro
from pydantic import Field, ValidationError, model_validator

from resight.config.distillation import Distillation
from resight.config.evaluation import Evaluation
from resight.config.folder import FolderOptions
from resight.config.optimization import Optimizer, Schedule
from resight.config.section import Section, explain
from resight.config.sections import Augmentation, Embedding, Loss, Model, Precision, Preprocessing, Sampling
from resight.errors import ConfigError


class Run(Section):
    """The complete configuration of a training run."""

    recipe: str = "custom"
    """The recipe that this configuration came from."""
    dataset: str = "market1501"
    """A data set of the catalog, or several joined by `+`; the first one is used for testing."""
    root: Path | None = None
    """The data set's folder or table; those of several data sets are joined by `:`."""
    folder: Annotated[FolderOptions, tyro.conf.OmitArgPrefixes] = FolderOptions()
    allow_train_test_overlap: bool = False
    """Accept identities and files that are both in the training set and in the test set."""
    weights: str | None = None
    """Pre-trained weights of the backbone: a file, a model folder or its address `hf://ORG/NAME`, or `timm`,
    `timm:NAME` or `hf-hub:ORG/NAME` to download timm's. None: random weights."""
    teacher: str | None = None
    """A trained model folder whose embeddings of the same images the student learns to match (distillation). It sees
    the augmented images in its own size and normalization, and an image's embedding is not averaged with that of the
    mirror image. None: no teacher."""
    out: Path | None = None
    """The run folder. None: `runs/` followed by the recipe's name."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Seed of all random numbers: weights, batches, augmentation, drop-path."""
    device: str = "auto"
    """`cpu`, `cuda`, `cuda:1`, `mps`, or `auto` for the best that is available."""
    precision: Precision = "auto"
    """Arithmetic of the matrix products; losses and weights stay in float32. `auto` means bf16 where that was measured
    to be faster on this machine, else fp32; the run folder's `compute.json` states the result."""
    micro_batch_size: int | None = Field(default=None, ge=1)
    """Images in one pass through the backbone in training. None: the batch. Fewer need less memory and give the same
    gradients, because triplets and BatchNorm still use the complete batch, at the cost of a second forward pass."""
    gradient_checkpointing: bool = False
    """Store only each block's input for the backward pass and recompute the rest: less memory, a third more time."""
    fsdp: bool = False
    """Divide the backbone's weights, gradients and optimizer state among the processes of torchrun (FSDP2), for a
    backbone that does not fit on one device; the checkpoint is divided in the same way."""
    compile: bool = False
    """Compile the blocks with torch.compile for training: the results are the same except for rounding. A CPU gains
    little (docs/training.md), the first steps take half a minute longer, and a C++ compiler is needed."""
    cache: bool = True
    """Decode and resize training images once, into files of pixels under `~/.cache/resight` (or `RESIGHT_CACHE`);
    `resight data clean` removes them. Off: decode in every epoch."""
    tensorboard: bool = False
    """Also log to TensorBoard, in the run folder (an extra: `pip install 'resight[tensorboard]'`)."""
    on_corrupt: Literal["error", "skip"] = "error"
    """What to do with images that cannot be decoded: stop with an error, or skip them."""
    validation_fraction: float = Field(default=0.0, ge=0, lt=1)
    """Fraction of the TRAINING identities held out to select the best checkpoint. 0: the last one is the best."""
    select_on_test: bool = False
    """Select the best checkpoint on the test set, as some papers do. Results are then too good; state it in reports."""
    evaluate_every: int = Field(default=0, ge=0)
    """Epochs between evaluations. 0: evaluate only after the last epoch."""
    checkpoint_steps: int = Field(default=0, ge=0)
    """Steps between checkpoints within an epoch. 0: only after each epoch, where a checkpoint is always written."""
    preprocessing: Preprocessing = Preprocessing()
    model: Model = Model()
    augmentation: Augmentation = Augmentation()
    sampling: Sampling = Sampling()
    loss: Loss = Loss()
    distillation: Distillation = Distillation()
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    embedding: Embedding = Embedding()
    evaluation: Evaluation = Evaluation()

    @model_validator(mode="after")
    def _fits(self) -> "Run":
        if self.validation_fraction and self.select_on_test:
            raise ValueError(
                "validation_fraction and select_on_test are two ways to select the best checkpoint; use one"
            )
        if self.loss.id_weight == 0 and self.loss.triplet_weight == 0:
            raise ValueError("loss.id_weight and loss.triplet_weight are both 0: nothing would be learned")
        if self.teacher is None and self.distillation != Distillation():
            raise ValueError("the section distillation is for a teacher, and there is none: give --teacher MODEL")
        if self.teacher is not None and not any(self.distillation.model_dump().values()):
            raise ValueError("all weights of the section distillation are 0, and nothing is learned from the teacher")
        return self


def read_run(path: Path) -> Run:
    """Read a configuration from JSON, such as a run folder's `config.json`.

    Raises:
        ConfigError: the file is missing, is not JSON, or does not describe a run.
    """
    try:
        return Run.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"the configuration {path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise ConfigError(f"{path} is not a run's configuration: {explain(error)}") from error
    except ValueError as error:  # NUL in the path
        raise ConfigError(f"the configuration {str(path)!r} cannot be read: {error}") from error
