"""The sections of the optimizer and of its learning rate. Imports no torch."""

from typing import Annotated, Literal

from pydantic import Field

from resight.config.section import Section

Decay = Annotated[float, Field(ge=0, lt=1)]


class Optimizer(Section):
    """The optimizer."""

    name: Literal["sgd", "adam", "adamw"] = "sgd"
    """The algorithm."""
    lr: float = Field(default=0.008, gt=0)
    """Base learning rate."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Momentum of SGD."""
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    """Decays in each step of the moving averages of the gradient and of its square, in Adam and AdamW. A training of
    few steps learns faster where the second one is lower, such as 0.98."""
    weight_decay: float = Field(default=1e-4, ge=0)
    """Weight decay."""
    bias_weight_decay: float = Field(default=1e-4, ge=0)
    """Weight decay of biases."""
    decay_vectors: bool = True
    """Whether biases, norms, tokens and layer scales are decayed. Off: their weight decay is 0."""
    bias_lr_factor: float = Field(default=2.0, gt=0)
    """Learning rate of biases, relative to the base."""
    head_lr_factor: float = Field(default=1.0, gt=0)
    """Learning rate of BNNeck, heads and SIE, which are not pre-trained, relative to the base."""
    classifier_lr_factor: float = Field(default=1.0, gt=0)
    """Learning rate of the heads alone (the classifiers), a further factor: 2 is the reference's LARGE_FC_LR."""
    layer_decay: float = Field(default=1.0, gt=0, le=1)
    """Learning rate of each block, relative to that of the next deeper block."""
    ema: float = Field(default=0.0, ge=0, lt=1)
    """Decay in each step of an exponential moving average (EMA) of the weights, which is then evaluated and saved as
    the model; 0 for none."""
    freeze_epochs: int = Field(default=0, ge=0)
    """First epochs, in which only BNNeck, heads and SIE are trained, which are not pre-trained."""
    clip: float | None = Field(default=None, gt=0)
    """Maximum norm of the gradient of all weights together; None for no limit."""


class Schedule(Section):
    """The schedule of the learning rate."""

    name: Literal["cosine", "multistep"] = "cosine"
    """A cosine down to the floor, or steps at the milestones."""
    every: Literal["epoch", "step"] = "epoch"
    """Whether the learning rate is set once in each epoch, as in the reference, or in every step."""
    epochs: int = Field(default=120, ge=1)
    """Number of epochs."""
    warmup_epochs: int = Field(default=5, ge=0)
    """Number of epochs of linear warm-up."""
    warmup_start: float = Field(default=0.01, ge=0, le=1)
    """Learning rate at the start of the warm-up, relative to the base."""
    floor: float = Field(default=0.002, ge=0, le=1)
    """Learning rate at the end of the cosine, relative to the base."""
    milestones: tuple[int, ...] = (40, 70)
    """Epochs after which `multistep` reduces the learning rate."""
    gamma: float = Field(default=0.1, gt=0, le=1)
    """Factor of the learning rate at each milestone of `multistep`."""
