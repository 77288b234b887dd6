"""OSNet, a small network of omni-scale blocks (Zhou et al. 2019), and its variants with instance normalisation.

A block computes four streams of one to four light 3x3 convolutions and adds them with gates that depend on the image.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resight.config.sections import Model
from resight.models.backbones.backbone import Backbone
from resight.models.backbones.layers import number_blocks

Norm = Literal["none", "inside", "after"]
"""Where a block has instance normalisation: nowhere, before the shortcut is added, or after that."""
Variant = Literal["", "ibn", "ain"]

_STREAMS: Final = 4
_CHANNELS: Final = (64, 256, 384, 512)
"""Channels of the stem and of the three stages, at width 1."""
_FEATURE: Final = 512
_NORMS: Final[Mapping[Variant, tuple[tuple[Norm, Norm], ...]]] = {
    "": (("none", "none"), ("none", "none"), ("none", "none")),
    "ibn": (("after", "after"), ("none", "none"), ("none", "none")),
    "ain": (("inside", "inside"), ("none", "inside"), ("inside", "none")),
}
_WIDTHS: Final = (1.0, 0.75, 0.5, 0.25)


@dataclass(frozen=True)
class OSNetLayout:
    """The structure of an OSNet."""

    variant: Variant
    channels: tuple[int, int, int, int]
    """Channels of the stem and of the three stages."""

    @property
    def norms(self) -> tuple[tuple[Norm, Norm], ...]:
        """Where the blocks of each stage have instance normalisation."""
        return _NORMS[self.variant]


def osnet_name(variant: Variant, stem: int) -> str:
    """Return the name of the OSNet whose stem has that number of channels, such as `osnet_ain_x0_5`."""
    width = str(stem / _CHANNELS[0]).replace(".", "_")
    return f"osnet_{variant + '_' if variant else ''}x{width}"


def _layouts() -> dict[str, OSNetLayout]:
    layouts: dict[str, OSNetLayout] = {}
    for variant in _NORMS:
        for width in _WIDTHS:
            stem, first, second, third = (int(count * width) for count in _CHANNELS)
            layouts[osnet_name(variant, stem)] = OSNetLayout(variant, (stem, first, second, third))
    return layouts


OSNETS: Final[Mapping[str, OSNetLayout]] = _layouts()
"""The structure of each OSNet, by its name: `osnet_x0_25`, `osnet_ibn_x1_0`, `osnet_ain_x0_5` and so on."""


class ConvNorm(nn.Module):
    """A convolution without bias, a normalisation and, unless it is linear, a ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, *, linear: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.bn: nn.Module = nn.BatchNorm2d(outputs)
        self.linear = linear

    def forward(self, x: Tensor) -> Tensor:
        """Transform maps [B, C, H, W]."""
        x = self.bn(self.conv(x))
        return x if self.linear else F.relu(x)


class LightConv(nn.Module):
    """A 1x1 convolution, a 3x3 convolution of each channel, batch normalisation and a ReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 1, bias=False)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Transform maps [B, C, H, W]."""
        return F.relu(self.bn(self.conv2(self.conv1(x))))


class Gate(nn.Module):
    """Weighs each channel of an image by a small MLP of the channels' means; the streams of a block share one."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // 16, 1)
        self.fc2 = nn.Conv2d(channels // 16, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Multiply maps [B, C, H, W] by a weight of each channel."""
        weights = torch.sigmoid(self.fc2(F.relu(self.fc1(x.mean((2, 3), keepdim=True)))))  # [B, C, 1, 1]
        return x * weights


class OSBlock(nn.Module):
    """An omni-scale residual block.

    Args:
        inputs: channels of the input.
        outputs: channels of the output, four times those of the streams.
        norm: where it has instance normalisation.
    """

    def __init__(self, inputs: int, outputs: int, norm: Norm) -> None:
        super().__init__()
        middle = outputs // 4
        self.conv1 = ConvNorm(inputs, middle)
        self.streams = nn.ModuleList(
            nn.Sequential(*(LightConv(middle) for _ in range(depth))) for depth in range(1, _STREAMS + 1)
        )
        self.gate = Gate(middle)
        self.conv3 = ConvNorm(middle, outputs, linear=True)
        if norm == "inside":
            # The block's instance normalisation takes the place of the last batch normalisation.
            self.conv3.bn = nn.InstanceNorm2d(outputs, affine=True)
        self.norm_after = nn.InstanceNorm2d(outputs, affine=True) if norm == "after" else None
        self.downsample = ConvNorm(inputs, outputs, linear=True) if inputs != outputs else None

    def forward(self, x: Tensor) -> Tensor:
        """Transform maps [B, inputs, H, W] to [B, outputs, H, W]."""
        # Reduce the channels, then add the gated streams: [B, outputs / 4, H, W].
        reduced = self.conv1(x)
        mixed = self.gate(self.streams[0](reduced))
        for stream in self.streams[1:]:
            mixed = mixed + self.gate(stream(reduced))
        # Expand the channels and add the shortcut: [B, outputs, H, W].
        x = self.conv3(mixed) + (x if self.downsample is None else self.downsample(x))
        return F.relu(x if self.norm_after is None else self.norm_after(x))


class OSNet(Backbone):
    """OSNet: stem, three stages of two blocks, a 1x1 convolution, the mean, and a fully connected layer."""

    widths = (_FEATURE,)

    def __init__(self, settings: Model, size: tuple[int, int], counts: Mapping[str, int]) -> None:
        super().__init__()
        layout = OSNETS[settings.backbone]
        channels = layout.channels
        self.stem = ConvNorm(3, channels[0], 7, 2)
        if layout.variant:
            self.stem.bn = nn.InstanceNorm2d(channels[0], affine=True)
        self.stages = nn.ModuleList()
        for inputs, outputs, norms in zip(channels, channels[1:], layout.norms, strict=False):
            blocks: list[nn.Module] = [OSBlock(inputs, outputs, norms[0]), OSBlock(outputs, outputs, norms[1])]
            if outputs != channels[-1]:
                blocks += [ConvNorm(outputs, outputs), nn.AvgPool2d(2)]
            self.stages.append(nn.Sequential(*blocks))
        self.last = ConvNorm(channels[-1], channels[-1])
        self.fc = nn.Sequential(nn.Linear(channels[-1], _FEATURE), nn.BatchNorm1d(_FEATURE), nn.ReLU())
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.01)
        self.layers = number_blocks(self, r"stages\.\d\.\d\.")
        self.depth = max(self.layers.values())

    def forward(self, images: Tensor, side_info: Mapping[str, Tensor]) -> list[Tensor]:
        """Compute the feature of images [R, 3, H, W], in a list: [R, 512], never negative. No side information."""
        x = F.max_pool2d(self.stem(images), 3, 2, 1)  # [R, C, H / 4, W / 4]
        for stage in self.stages:
            x = stage(x)
        return [self.fc(self.last(x).mean((2, 3)))]
