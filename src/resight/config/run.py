"""The whole configuration of a run: frozen, validated, and the same again after a round trip through JSON."""

from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError, model_validator

from resight.config.sections import (
    Augmentation,
    Embedding,
    Evaluation,
    Loss,
    Model,
    Optimizer,
    Precision,
    Preprocessing,
    Sampling,
    Schedule,
    Section,
    explain,
)
from resight.errors import ConfigError


class Run(Section):
    """One training run, whole."""

    recipe: str = "custom"
    """The recipe that this configuration came from."""
    dataset: str = "market1501"
    """A data set of the catalog, or several with `+` between them, the first of which is tested on."""
    root: Path | None = None
    """The data set's folder (or table); of several, with `:` between them."""
    weights: str | None = None
    """Pre-trained weights of the backbone: a file, `timm` to have timm download its own, or None to start at random."""
    out: Path | None = None
    """The run folder. None: `runs/` and the recipe's name."""
    seed: int = 0
    """Decides every draw: weights, batches, augmentation, drop-path."""
    device: str = "auto"
    """`cpu`, `cuda`, `cuda:1`, `mps`, or `auto` for the best there is."""
    precision: Precision = "auto"
    """Arithmetic of the matrix products; losses and weights stay in float32. `auto` means bf16 where that was measured
    to be faster on this machine, else fp32; what it came to is in the run folder's `compute.json`."""
    micro_batch_size: int | None = Field(default=None, ge=1)
    """Pictures that go through the backbone at once in training. None: the batch whole. Fewer need less memory and give
    the same gradients, triplets mined and BatchNorm taken over the whole batch, for one forward pass more."""
    gradient_checkpointing: bool = False
    """Keep only each block's input for the backward pass and compute the rest again: less memory, a third more time."""
    fsdp: bool = False
    """Share the backbone's weights, gradients and optimizer state out among the processes of torchrun, for one that no
    device holds whole (FSDP2); the state is checkpointed in as many parts."""
    compile: bool = False
    """Run the blocks as torch.compile makes them in training: the same numbers but for rounding. A CPU gains little
    (docs/training.md), the first steps take half a minute more, and a C++ compiler must be there."""
    cache: bool = True
    """Decode and resize training pictures once, into files of pixels under `~/.cache/resight` (or `RESIGHT_CACHE`);
    `resight data clean` removes them. Off: decode in every epoch."""
    tensorboard: bool = False
    """Write the figures for TensorBoard too, into the run's folder (an extra: `pip install 'resight[tensorboard]'`)."""
    on_corrupt: Literal["error", "skip"] = "error"
    """What to do about pictures that cannot be decoded."""
    validation_fraction: float = Field(default=0.0, ge=0, lt=1)
    """Share of the TRAINING identities kept aside to choose the best checkpoint by. 0: the best is the last."""
    select_on_test: bool = False
    """Choose the best checkpoint by the test set, as some papers do. It flatters the result; say so if you use it."""
    evaluate_every: int = Field(default=0, ge=0)
    """Epochs between evaluations. 0: only after the last."""
    checkpoint_steps: int = Field(default=0, ge=0)
    """Steps between checkpoints within an epoch; one is written after each epoch in any case."""
    preprocessing: Preprocessing = Preprocessing()
    model: Model = Model()
    augmentation: Augmentation = Augmentation()
    sampling: Sampling = Sampling()
    loss: Loss = Loss()
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    embedding: Embedding = Embedding()
    evaluation: Evaluation = Evaluation()

    @model_validator(mode="after")
    def _fits(self) -> "Run":
        if self.validation_fraction and self.select_on_test:
            raise ValueError("held_out and select_on_test are two ways to choose the best checkpoint; use one")
        if self.loss.id_weight == 0 and self.loss.triplet_weight == 0:
            raise ValueError("loss.id_weight and loss.triplet_weight are both 0: nothing would be learned")
        return self


def read_run(path: Path) -> Run:
    """Reads a configuration saved as JSON (a run folder's `config.json`).

    Raises:
        ConfigError: the file is missing, is no JSON, or does not describe a run.
    """
    try:
        return Run.model_validate_json(path.read_text())
    except OSError as error:
        raise ConfigError(f"the configuration {path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise ConfigError(f"{path} is not a run's configuration: {explain(error)}") from error
