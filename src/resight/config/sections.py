"""The sections of a run's configuration: below the verbs no function takes more than its own. Imports no torch."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from resight.errors import ConfigError

SideLabel = Literal["camera", "view", "modality"]
HeadName = Literal["softmax", "arcface", "cosface", "am-softmax", "circle"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
"""Arithmetic of the matrix products; `auto` is measured on the machine (`resight.device.best_precision`)."""
ResolvedPrecision = Literal["fp32", "bf16", "fp16"]
Interpolation = Literal["bilinear", "bicubic"]
JunkRule = Literal[
    "none",
    "same-camera",
    "same-scene",
    "same-camera-or-clothes",
    "same-camera-or-other-clothes",
    "same-place",
    "same-tracklet",
    "time-window",
]
Pooling = Literal["off", "mean", "max"]
Fusion = Literal["auto", "concat", "mean"]
UnknownSideInfo = Literal["mean", "off"]


class Section(BaseModel):
    """A part of the configuration: cannot be changed once made, knows no other field than its own."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Preprocessing(Section):
    """How a picture becomes the network's input; stored beside the weights."""

    size: tuple[int, int] = (256, 128)
    """Height and width in pixels."""
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    """Mean of each channel, of values in [0, 1]."""
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    """Standard deviation of each channel."""
    train_interpolation: Interpolation = "bicubic"
    """Resizing in training."""
    test_interpolation: Interpolation = "bilinear"
    """Resizing in testing (the reference's differs from its training)."""


class Model(Section):
    """The network."""

    backbone: str = "vit_base_patch16_224"
    """A plain ViT by its timm name, `legacy_vit_small` (the reference's old small one), or `resnet50`."""
    stride: int | None = Field(default=None, ge=1)
    """Pixels between patches; less than the patch overlaps them. None: the patch's own size."""
    sie: tuple[SideLabel, ...] = ()
    """Side information embedding (SIE): any of camera, view and modality."""
    sie_weight: float = 3.0
    """What the SIE is multiplied by before it is added to every token."""
    sie_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Probability that a training picture's side labels count as unknown, so that what is answered for pictures whose
    camera or view nobody knows is trained too."""
    jpm: bool = False
    """Jigsaw patch module: parts of shifted and shuffled patches beside the global feature."""
    jpm_shift: int = Field(default=5, ge=0)
    """Where JPM cuts the token sequence, the class token counted: shift - 1 patches move to the end."""
    jpm_groups: int = Field(default=2, ge=1)
    """Groups of the patch shuffle."""
    jpm_parts: int = Field(default=4, ge=1)
    """Number of local features."""
    jpm_rearrange: bool = True
    """Off: the parts are plain runs of patches, neither shifted nor shuffled."""
    head: HeadName = "softmax"
    """The classifier that identities are learned through."""
    head_scale: float = Field(default=30.0, gt=0)
    """Scale of a margin head's logits."""
    head_margin: float = Field(default=0.5, ge=0)
    """Margin of a margin head (radians for ArcFace)."""
    feature: Literal["before", "after"] = "before"
    """Whether an embedding is taken before or after BNNeck."""
    drop_path: float = Field(default=0.1, ge=0, lt=1)
    """Stochastic depth of the last block; it grows linearly from 0 in the first."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout after the position embedding and after each projection."""
    attention_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout of attention weights."""


class Embedding(Section):
    """How pictures and sightings become vectors, beside the weights and the preprocessing. Part of the model card: every
    verb that embeds follows it, so that a figure that was measured describes the vectors that are used."""

    precision: Precision = "auto"
    """Arithmetic of the matrix products; `auto` is measured on the machine. Precisions can be compared with one another."""
    flip: bool = False
    """Whether an embedding is the mean over the picture and its mirror image."""
    fusion: Fusion = "auto"
    """How the embeddings of a sighting's modalities become one: `concat` puts them side by side, which compares each
    modality with itself; `mean` also compares one modality with another. `auto` is `mean` for data sets whose protocol
    searches one modality with another, else `concat`; it is resolved before a training begins."""
    unknown: UnknownSideInfo = "mean"
    """The side information of a picture whose camera or view is unknown or was not in training: the mean of what was
    learned, or none (`off`)."""
    batch_size: int | None = Field(default=None, ge=1)
    """Images embedded at once. None: 32 on a CPU, 512 on an accelerator."""


class Augmentation(Section):
    """The random part of the way into training, drawn anew for each picture in each epoch."""

    flip: float = Field(default=0.5, ge=0, le=1)
    """Probability of a horizontal flip."""
    pad: int = Field(default=10, ge=0)
    """Black pixels put around a picture before a crop of its own size is taken at random."""
    erase: float = Field(default=0.5, ge=0, le=1)
    """Probability of one erased box (2 % to 33 % of the area, aspect 0.3 to 3.3), filled with N(0, 1) noise."""
    jitter: float = Field(default=0.0, ge=0, lt=1)
    """How far brightness, contrast and saturation go from 1, each by itself."""
    grey: float = Field(default=0.0, ge=0, le=1)
    """Probability that a picture loses its colour."""
    grey_patch: float = Field(default=0.0, ge=0, le=1)
    """Probability that a box of it does (2 % to 40 % of the area), so that a network does not live on colour alone."""
    autoaugment: float = Field(default=0.0, ge=0, le=1)
    """Probability that a picture goes through AutoAugment's policy for ImageNet."""
    augmix: float = Field(default=0.0, ge=0, le=1)
    """Probability that it is mixed of several changed ones (AugMix), instead."""
    share_draws: bool = True
    """Whether the modalities of one sighting share their draws (they are registered) or each has its own."""


class Sampling(Section):
    """What a training batch holds: P identities, K sightings of each."""

    identities: int = Field(default=16, ge=2)
    """P."""
    instances: int = Field(default=4, ge=2)
    """K."""


class Loss(Section):
    """The training objective."""

    id_weight: float = Field(default=1.0, ge=0)
    """Weight of the identity loss (cross-entropy over the head's logits)."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Label smoothing of the identity loss."""
    triplet_weight: float = Field(default=1.0, ge=0)
    """Weight of the batch-hard triplet loss."""
    triplet_margin: float | None = None
    """None: the soft margin log(1 + exp(d_ap - d_an)). A number: the hinge with that margin."""
    triplet_normalize: bool = False
    """Whether triplet distances are between features of unit length."""
    triplet_within: Literal["batch", "modality"] = "batch"
    """Whether triplets are mined across modalities (the reference, and for searching one modality with another), or
    each modality keeps its own (for sightings whose modalities are fused)."""
    center_weight: float = Field(default=0.0, ge=0)
    """Weight of the center loss on the global feature; 0 leaves it out."""
    center_lr: float = Field(default=0.5, gt=0)
    """Learning rate of the centers' own SGD."""


class Optimizer(Section):
    """How weights move."""

    name: Literal["sgd", "adam", "adamw"] = "sgd"
    """The algorithm."""
    lr: float = Field(default=0.008, gt=0)
    """Base learning rate."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Momentum of SGD."""
    weight_decay: float = Field(default=1e-4, ge=0)
    """Weight decay."""
    bias_weight_decay: float = Field(default=1e-4, ge=0)
    """Weight decay of biases."""
    decay_vectors: bool = True
    """Off: biases, norms, tokens and layer scales are not decayed at all."""
    bias_lr_factor: float = Field(default=2.0, gt=0)
    """Learning rate of biases over the base."""
    head_lr_factor: float = Field(default=1.0, gt=0)
    """Learning rate of BNNeck, head and SIE (what no pre-training gave) over the base."""
    layer_decay: float = Field(default=1.0, gt=0, le=1)
    """Learning rate of each block over that of the next deeper one."""
    ema: float = Field(default=0.0, ge=0, lt=1)
    """Decay, a step, of a moving average of the weights, which is then what is measured and kept as the model; 0 for
    none."""
    freeze_epochs: int = Field(default=0, ge=0)
    """Epochs in which only what no pre-training gave (BNNeck, heads, SIE) is trained."""
    clip: float | None = Field(default=None, gt=0)
    """Largest norm of the whole gradient; None leaves it as it is."""


class Schedule(Section):
    """How the learning rate goes."""

    name: Literal["cosine", "multistep"] = "cosine"
    """Cosine to the floor, or steps."""
    every: Literal["epoch", "step"] = "epoch"
    """Whether the rate is set once an epoch, as in the reference, or at every step."""
    epochs: int = Field(default=120, ge=1)
    """Epochs in all."""
    warmup_epochs: int = Field(default=5, ge=0)
    """Epochs of linear warm-up."""
    warmup_start: float = Field(default=0.01, ge=0, le=1)
    """Where the warm-up starts, over the base learning rate."""
    floor: float = Field(default=0.002, ge=0, le=1)
    """Where the cosine ends, over the base learning rate."""
    milestones: tuple[int, ...] = (40, 70)
    """Epochs after which the steps of `multistep` fall."""
    gamma: float = Field(default=0.1, gt=0, le=1)
    """What each step of `multistep` multiplies by."""


class Evaluation(Section):
    """How a model is measured."""

    protocol: str | None = None
    """Who asks, what is searched and what is left out, by name (docs/protocols.md). None: the data set's own."""
    junk: JunkRule | None = None
    """Another rule than the protocol's for what a query's ranking leaves out; `none` keeps all but its own file."""
    window: float = Field(default=3600.0, ge=0)
    """Seconds, for the rule `time-window`."""
    trials: int | None = Field(default=None, ge=1)
    """Galleries drawn, where the protocol draws one. None: as many as the protocol says."""
    multi_query: Pooling = "off"
    """Whether the queries of one identity under one camera ask as one, by their mean or their greatest values."""
    tracklets: Pooling = "off"
    """Whether a tracklet is one item, on both sides."""
    rerank: bool = False
    """Whether the ranking is by k-reciprocal neighbours (Zhong et al. 2017)."""
    k1: int = Field(default=20, ge=1)
    """Neighbours that can be mutual, in re-ranking."""
    k2: int = Field(default=6, ge=1)
    """Neighbours whose sets are averaged, in re-ranking."""
    rerank_weight: float = Field(default=0.3, ge=0, le=1)
    """Share of the original distance in the re-ranked one: the paper's lambda."""
    expand_query: int = Field(default=0, ge=0)
    """Neighbours that a query is averaged with before it asks (average query expansion); 0 for none."""
    expand_gallery: int = Field(default=0, ge=0)
    """Neighbours that each gallery item is averaged with (database-side augmentation); 0 for none."""
    expand_power: float = Field(default=3.0, ge=0)
    """What a neighbour's similarity is raised to, to weigh it in an expansion; 0 weighs all alike."""


def explain(error: ValidationError) -> ConfigError:
    """pydantic's findings as one sentence."""
    parts = [f"{'.'.join(map(str, e['loc'])) or 'the configuration'}: {e['msg']}" for e in error.errors()]
    return ConfigError("; ".join(parts))
