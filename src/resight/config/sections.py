"""The sections of a run's configuration. A function takes its own section, not the whole run. Imports no torch."""

from typing import Annotated, Literal

from pydantic import Field

from resight.config.scaling import Scaling
from resight.config.section import Section

SideLabel = Literal["camera", "view", "modality"]
HeadName = Literal["softmax", "arcface", "cosface", "am-softmax", "circle"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
"""Arithmetic of the matrix products; `auto` is measured on the machine (`resight.device.best_precision`)."""
ResolvedPrecision = Literal["fp32", "bf16", "fp16"]
Interpolation = Literal["bilinear", "bicubic"]
Pool = Literal["token", "mean", "max", "gem", "token-gem", "mean-max", "max4-mean"]
PartFusion = Literal["concat", "mean", "all"]
Fusion = Literal["auto", "concat", "mean", "learned"]
LearnedFusion = Literal["concat", "mean", "gate", "attention"]
UnknownSideInfo = Literal["mean", "off"]
Pixels = Annotated[int, Field(ge=1, le=4096)]
Deviation = Annotated[float, Field(gt=0)]


class Preprocessing(Section):
    """How an image becomes the input of the network; part of the model card."""

    size: tuple[Pixels, Pixels] = (256, 128)
    """Height and width in pixels."""
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    """Mean of each channel, for values in [0, 1]."""
    std: tuple[Deviation, Deviation, Deviation] = (0.5, 0.5, 0.5)
    """Standard deviation of each channel, for values in [0, 1]."""
    train_interpolation: Interpolation = "bicubic"
    """Interpolation of resizing in training."""
    test_interpolation: Interpolation = "bilinear"
    """Interpolation of resizing in evaluation (in the reference it differs from training)."""
    scaling: Scaling = Field(default={})
    """By modality (or `default`), how one channel of 16 or 32 bits or of floating-point numbers becomes 8 bits:
    `percentiles LOW HIGH` or `limits LOW HIGH`. Without a rule, such images are refused."""


class Model(Section):
    """The network."""

    backbone: str = "vit_base_patch16_224"
    """A timm name, also of the Hub (`hf-hub:ORG/NAME`), `legacy_vit_small` (the reference's old small ViT), `resnet50`,
    or another name of our own (docs/backbones.md). A field that a backbone does not use is refused where it is set."""
    stride: int | None = Field(default=None, ge=1)
    """Pixels from one patch to the next; patches overlap where it is less than their size. None: the patch size."""
    sie: tuple[SideLabel, ...] = ()
    """Side information embedding (SIE): any of camera, view and modality."""
    sie_weight: float = 3.0
    """Factor of the SIE before it is added to every token."""
    sie_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Probability in training that all side information of an image counts as unknown, so that the embedding of images
    with an unknown camera or view is trained too."""
    jpm: bool = False
    """Jigsaw patch module (JPM): local features from shifted and shuffled patches, next to the global feature."""
    jpm_shift: int = Field(default=5, ge=0)
    """Shift of the token sequence in JPM; the class token counts in it, so jpm_shift - 1 patches move to the end."""
    jpm_groups: int = Field(default=2, ge=1)
    """Number of groups of JPM's patch shuffle."""
    jpm_parts: int = Field(default=4, ge=1)
    """Number of JPM's local features."""
    jpm_rearrange: bool = True
    """Whether JPM shifts and shuffles patches. Off: each part is a sequence of consecutive patches."""
    head: HeadName = "softmax"
    """The classifier of identities in training."""
    head_scale: float = Field(default=30.0, gt=0)
    """Scale of a margin head's logits."""
    head_margin: float = Field(default=0.5, ge=0)
    """Margin of a margin head (radians for ArcFace)."""
    feature: Literal["before", "after"] = "before"
    """Whether an embedding is taken before or after BNNeck."""
    fusion: LearnedFusion | None = None
    """How the network makes one feature of a sighting's modalities (docs/modalities.md): `mean`, `gate` (weights from
    the images), `attention` (class tokens attend to the other modalities) or `concat` (side by side, 0 where one is
    absent). The losses are then on the images and on the fused features. None: each image is embedded alone, and
    `embedding.fusion` says how they are combined."""
    separate_backbones: bool = False
    """Whether each modality has a backbone of its own. Off: one backbone for all modalities."""
    drop_path: float = Field(default=0.1, ge=0, lt=1)
    """Drop-path rate (stochastic depth) of the last block; it grows linearly from 0 in the first block."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout after the position embedding and after each projection."""
    attention_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout of attention weights."""
    pooling: Pool | None = None
    """How tokens or a feature map become one feature: the class token; mean, maximum or generalised mean (GeM) of the
    patches; class token plus GeM; mean and maximum concatenated; or the mean over the maxima of each 4 consecutive
    patches. None: the class token where there is one, else the mean."""
    gem_power: float = Field(default=3.0, gt=0, le=100)
    """Exponent of a generalised mean; fixed in `token-gem`."""
    stem: Literal["patch", "ics"] = "patch"
    """How a plain ViT makes patches: by one projection, or by TransReID-SSL's convolutions (ICS)."""
    sie_tokens: Literal["all", "class"] = "all"
    """Whether SIE is added to all tokens, or to the class token alone (as in CLIP-ReID)."""
    projection: int | None = Field(default=None, ge=1, le=16_384)
    """Length of CLIP's projection of the feature, which becomes a second feature beside it. None: no projection."""
    part_tokens: int = Field(default=0, ge=0, le=16)
    """Number of learned part tokens after the class token (PASS has 3)."""
    part_fusion: PartFusion = "concat"
    """How the features of the class token and the part tokens make an embedding: class token and mean of the parts
    concatenated, the mean of both, or all of them concatenated."""
    part_necks: bool = True
    """Whether each token of class and parts has a BNNeck and a head of its own. Off: they are fused before."""
    last_stride: Literal[1, 2] = 1
    """Stride of the last stage of a ResNet."""
    max_pool: Literal["padded", "ceil"] = "padded"
    """First max pool of a ResNet: with a padding of 1, or without padding and rounded up (fast-reid since 2020)."""
    semantic_weight: float = Field(default=0.2, ge=0, le=1)
    """Semantic weight of SOLIDER's Swin transformers, from 0 (appearance) to 1 (parts of the body)."""


class Embedding(Section):
    """How images and sightings become vectors, in addition to the weights and the preprocessing. Part of the model
    card: every command that embeds uses it, so that measured figures describe the vectors in use."""

    precision: Precision = "auto"
    """Arithmetic of the matrix products; `auto` is measured on the machine. All give comparable vectors."""
    flip: bool = False
    """Whether an embedding is the mean over the image and its horizontal flip."""
    fusion: Fusion = "auto"
    """How the embeddings of a sighting's modalities become one. `concat` concatenates them, which compares each
    modality with itself; `mean` also compares one modality with another; `learned` is the network's own
    (`model.fusion`). `auto` is `learned` where the network has one, else `mean` for data sets whose protocol has
    queries and gallery of different modalities, else `concat`; it is resolved before training starts."""
    unknown: UnknownSideInfo = "mean"
    """The side information of an image whose camera or view is unknown or was not in training: the mean of the learned
    vectors, or none (`off`)."""
    scaling: Scaling = Field(default={})
    """Rules instead of those of the preprocessing; none: those of the preprocessing are used."""
    batch_size: int | None = Field(default=None, ge=1)
    """Images embedded at once. None: 32 on a CPU, 512 on an accelerator."""


class Augmentation(Section):
    """Random changes of training images, drawn for each image in each epoch."""

    flip: float = Field(default=0.5, ge=0, le=1)
    """Probability of a horizontal flip."""
    pad: int = Field(default=10, ge=0)
    """Black pixels added on each side of an image before a random crop of the original size."""
    erase: float = Field(default=0.5, ge=0, le=1)
    """Probability that a box (2 % to 33 % of the area, aspect ratio 0.3 to 3.3) is erased with N(0, 1) noise."""
    jitter: float = Field(default=0.0, ge=0, lt=1)
    """Greatest deviation from 1 of the factors of brightness, contrast and saturation, drawn independently."""
    grey: float = Field(default=0.0, ge=0, le=1)
    """Probability that an image becomes grey."""
    grey_patch: float = Field(default=0.0, ge=0, le=1)
    """Probability that a box (2 % to 40 % of the area) becomes grey, so that colour is not the only feature learned."""
    tone: float = Field(default=0.0, ge=0, le=1)
    """Probability that the levels of each channel are mapped by a random curve, drawn for each image also where draws
    are shared: the network then learns shapes, which all modalities show, rather than colours or temperatures."""
    autoaugment: float = Field(default=0.0, ge=0, le=1)
    """Probability that AutoAugment's policy for ImageNet is applied to an image."""
    augmix: float = Field(default=0.0, ge=0, le=1)
    """Probability that AugMix, a mixture of several changed copies, is applied to an image instead."""
    share_draws: bool = True  # words: ok
    """Whether the modalities of a sighting, which are registered, get the same random changes. Off: each its own."""
    misregistration: int = Field(default=0, ge=0)
    """Greatest random shift of each modality in pixels, drawn for each image also where draws are shared, so that the
    model tolerates cameras that are not registered exactly."""
    drop_modality: float = Field(default=0.0, ge=0, le=1)
    """Probability that a sighting of several modalities loses some of them, from one to all but one, so that the model
    is trained for sightings that lack a modality. What is dropped does not pass the network."""
    drop_by_modality: dict[str, Annotated[float, Field(ge=0, le=1)]] = Field(default={})
    """Probability that all sightings of an identity in a batch lose a modality, such as `rgb 0.35 nir 0.2`. With fewer
    images of the modalities that are easy to learn, the network sees more of the others in the same time."""


class Sampling(Section):
    """The composition of a training batch: P identities with K sightings of each."""

    identities: int = Field(default=16, ge=2)
    """Number of identities, P."""
    instances: int = Field(default=4, ge=2)
    """Number of sightings of each identity, K."""


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
    """Whether the distances of triplets are between features of unit length."""
    triplet_within: Literal["batch", "modality"] = "batch"
    """Whether triplets are mined across modalities (as in the reference, and for queries of another modality than the
    gallery), or within each modality (for sightings whose modalities are fused)."""
    center_weight: float = Field(default=0.0, ge=0)
    """Weight of the center loss on the global feature; 0 for none."""
    center_lr: float = Field(default=0.5, gt=0)
    """Learning rate of the SGD optimizer of the centers."""
    fused_weight: float = Field(default=1.0, ge=0)
    """Weight of all losses of a sighting's fused features (`model.fusion`), relative to those of its images. With
    `concat`, 0.1 is better than 1 for any modalities."""
    cross_modal_weight: float = Field(default=0.0, ge=0)
    """Weight of the contrastive loss between images of different modalities, for searching one modality with another;
    0 for none."""
    cross_modal_temperature: float = Field(default=0.1, gt=0)
    """Temperature of that loss: with a low one, the most similar images of other identities count most."""
