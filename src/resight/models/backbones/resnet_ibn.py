"""ResNets, and what re-identification added to them: IBN, non-local blocks, GeM, another last stride and max pool.

IBN: Pan et al. 2018. Non-local blocks: Wang et al. 2018, as Ye et al. 2021 (AGW) reduce them to one inner channel.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, cast

from torch import Tensor, nn
from torch.nn import functional as F

from resight.models.backbones.stems import IBN
from resight.models.pooling import Pool

MaxPool = Literal["padded", "ceil"]
"""The max pool of the first layers: with a padding of 1, or without padding and with its size rounded up (fast-reid
since 2020-08-14)."""

_DEPTHS: Final = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
_NON_LOCAL: Final = {50: (0, 2, 3, 0), 101: (0, 2, 9, 0)}
_WIDTHS: Final = (64, 128, 256, 512)
FC_WIDTH: Final = 512


@dataclass(frozen=True)
class ResNetLayout:
    """The structure of a ResNet."""

    blocks: tuple[int, int, int, int]
    """Number of blocks in each stage."""
    bottleneck: bool
    """Whether blocks have three convolutions, else two."""
    ibn: bool = False
    """Whether half of the channels of the first norm of the blocks, but the last stage's, is instance-normalised."""
    non_local: tuple[int, int, int, int] = (0, 0, 0, 0)
    """Number of non-local blocks in each stage, after its last blocks."""
    fc: bool = False
    """Whether a fully connected layer to 512, batch normalisation and a ReLU follow the pooling."""

    @property
    def width(self) -> int:
        """Channels of the last stage."""
        return 512 * (4 if self.bottleneck else 1)


def _layouts() -> dict[str, ResNetLayout]:
    layouts: dict[str, ResNetLayout] = {}
    for depth, blocks in _DEPTHS.items():
        for ibn in (False, True):
            name = f"resnet{depth}{'_ibn' if ibn else ''}"
            layouts[name] = ResNetLayout(blocks, depth >= 50, ibn)
            if depth in _NON_LOCAL:
                layouts[f"{name}_nl"] = ResNetLayout(blocks, True, ibn, _NON_LOCAL[depth])
        layouts[f"resnet{depth}_fc512"] = ResNetLayout(blocks, depth >= 50, fc=True)
    return layouts


RESNETS: Final[Mapping[str, ResNetLayout]] = _layouts()
"""The structure of each ResNet, by its name: `resnet50`, `resnet50_ibn`, `resnet101_ibn_nl`, `resnet50_fc512` and so
on."""


class NonLocal(nn.Module):
    """A non-local block with one inner channel: every position attends to all N, by products over N, without softmax.

    Args:
        channels: of the maps.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.g = nn.Conv2d(channels, 1, 1)
        self.W = nn.Sequential(nn.Conv2d(1, channels, 1), nn.BatchNorm2d(channels))
        self.theta = nn.Conv2d(channels, 1, 1)
        self.phi = nn.Conv2d(channels, 1, 1)

    @property
    def norm(self) -> nn.BatchNorm2d:
        """The batch normalisation of what is added."""
        return cast(nn.BatchNorm2d, self.W[1])

    def forward(self, x: Tensor) -> Tensor:
        """Add to maps [B, C, H, W] what their positions get from all positions."""
        # With one channel, (theta phi^T / N) g = theta (phi . g) / N: no matrix of N x N is needed.
        theta = self.theta(x)  # [B, 1, H, W]
        weight = (self.phi(x) * self.g(x)).mean((2, 3), keepdim=True)  # [B, 1, 1, 1]
        return x + self.W(theta * weight)


class ResBlock(nn.Module):
    """A residual block of two 3x3 convolutions, or of 1x1, 3x3 and 1x1 ones, with torchvision's names."""

    def __init__(self, inputs: int, width: int, stride: int, bottleneck: bool, ibn: bool) -> None:
        super().__init__()
        outputs = width * (4 if bottleneck else 1)
        kernel = 1 if bottleneck else 3
        self.conv1 = nn.Conv2d(inputs, width, kernel, 1 if bottleneck else stride, kernel // 2, bias=False)
        self.bn1 = IBN(width) if ibn else nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride if bottleneck else 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False) if bottleneck else None
        self.bn3 = nn.BatchNorm2d(outputs) if bottleneck else None
        self.downsample: nn.Sequential | None = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Transform maps [B, C, H, W]."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.conv3 is not None and self.bn3 is not None:
            x = self.bn3(self.conv3(F.relu(x)))
        return F.relu(x + shortcut)


class ResStage(nn.Sequential):
    """The blocks of a stage; non-local blocks follow the last of them, one each."""

    def forward(self, x: Tensor, non_local: Sequence[nn.Module]) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Transform maps [B, C, H, W]."""
        first = len(self) - len(non_local)
        for index, block in enumerate(self):
            x = block(x)
            if index >= first:
                x = non_local[index - first](x)
        return x


class ResNetIBN(nn.Module):
    """A ResNet with torchvision's names: maps of images [R, 3, H, W] pooled to [R, D].

    Args:
        layout: depth, IBN, non-local blocks and fully connected layer.
        last_stride: of the last stage, 1 or 2.
        max_pool: of the first layers.
        pool: pools the last maps.
    """

    def __init__(self, layout: ResNetLayout, last_stride: int, max_pool: MaxPool, pool: Pool) -> None:
        super().__init__()
        self.width = FC_WIDTH if layout.fc else layout.width
        self.ceil = max_pool == "ceil"
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        inputs = 64
        for stage, (count, width) in enumerate(zip(layout.blocks, _WIDTHS, strict=True)):
            blocks: list[nn.Module] = []
            for index in range(count):
                stride = (1, 2, 2, last_stride)[stage] if index == 0 else 1
                blocks.append(ResBlock(inputs, width, stride, layout.bottleneck, layout.ibn and stage < 3))
                inputs = width * (4 if layout.bottleneck else 1)
            self.add_module(f"layer{stage + 1}", ResStage(*blocks))
            self.add_module(f"NL_{stage + 1}", nn.ModuleList(NonLocal(inputs) for _ in range(layout.non_local[stage])))
        self.global_pool = pool
        fc = (nn.Linear(layout.width, FC_WIDTH), nn.BatchNorm1d(FC_WIDTH), nn.ReLU())
        self.fc = nn.Sequential(*fc) if layout.fc else nn.Identity()
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        for module in self.modules():
            if isinstance(module, ResBlock):  # each block starts as its shortcut
                nn.init.zeros_((module.bn3 or module.bn2).weight)
            if isinstance(module, NonLocal):  # and each non-local block as the identity
                nn.init.zeros_(module.norm.weight)

    def forward_features(self, images: Tensor) -> Tensor:
        """Compute the last maps of images [R, 3, H, W]: [R, D, H / 16, W / 16], or H / 32 with a last stride of 2."""
        x = F.relu(self.bn1(self.conv1(images)))
        x = F.max_pool2d(x, 3, 2, 0 if self.ceil else 1, ceil_mode=self.ceil)  # [R, 64, H / 4, W / 4]
        for stage in range(1, 5):
            non_local = list(self.get_submodule(f"NL_{stage}").children())
            x = self.get_submodule(f"layer{stage}")(x, non_local)
        return x

    def forward(self, images: Tensor) -> Tensor:
        """Compute the feature of images [R, 3, H, W]: [R, D]."""
        x = self.forward_features(images)
        return self.fc(self.global_pool(None, x.flatten(2).transpose(1, 2)))
