"""Any network of timm that has a feature map or tokens: Swin, ConvNeXt, EfficientNet, BEiT, CaiT and others."""

from collections.abc import Mapping
from typing import Any, ClassVar, cast

from timm.layers.norm import LayerNorm2d
from torch import Tensor, nn

from resight.config.sections import Model
from resight.errors import ConfigError
from resight.models.backbones.backbone import Backbone
from resight.models.backbones.plain import empty_net
from resight.models.backbones.positions import resize_positions
from resight.models.backbones.timm_layers import create_net, layer_numbers, map_shape, with_prefix
from resight.models.pooling import Pool


class TimmNet(Backbone):
    """A network of timm, pooled over its last feature map or its tokens.

    The pooled feature goes through the network's own last norm where that comes after pooling (ConvNeXt).

    Args:
        settings: the model's section of the configuration; `pooling` None is the class token, or else the mean.
        size: height and width of the images in pixels.
        counts: not used.

    Raises:
        ConfigError: the network cannot take images of that size, or a pooling needs a class token that it does not
            have.
    """

    options: ClassVar[frozenset[str]] = frozenset(("pooling", "gem_power", "drop_path"))

    def __init__(self, settings: Model, size: tuple[int, int], counts: Mapping[str, int]) -> None:
        super().__init__()
        name = settings.backbone
        has_class_token = getattr(empty_net(name), "cls_token", None) is not None
        pooling = settings.pooling or ("token" if has_class_token else "mean")
        global_pool = "token" if "token" in pooling else "avg"
        if settings.gem_power != 3.0 and "gem" not in pooling:
            raise ConfigError("gem_power needs the pooling gem or token-gem")
        if "token" in pooling and not has_class_token:
            raise ConfigError(f"the pooling {pooling} needs a class token, and {name} has none: use mean, gem or max")
        shape = map_shape(name, size, global_pool)
        self.net = create_net(name, size, settings.drop_path, global_pool)
        self.prefix = int(getattr(self.net, "num_prefix_tokens", 0)) if len(shape) == 3 else 0
        self.channels_last = getattr(self.net, "output_fmt", "NCHW") == "NHWC"
        width = shape[-1] if len(shape) == 3 or self.channels_last else shape[1]
        self.pool = Pool(pooling, settings.gem_power, trained=pooling == "gem")
        self.widths = (self.pool.width(width),)
        self.parts = self.widths[0] // width
        self.layers = layer_numbers(self.net)
        self.depth = max(self.layers.values())

    def forward(self, images: Tensor, side_info: Mapping[str, Tensor]) -> list[Tensor]:
        """Compute the feature of images [R, 3, H, W], in a list: [R, D]. Side information is ignored."""
        # The last feature map, [R, C, h, w] or [R, h, w, C], or tokens, [R, T, C], as positions: [R, N, C].
        x = self.net.forward_features(images)
        if x.ndim == 4:
            x = x.flatten(1, 2) if self.channels_last else x.flatten(2).transpose(1, 2)
        # Pool them, and apply the norm that comes after pooling: [R, D].
        token = x[:, 0] if self.prefix else None
        pooled = self.pool(token, x[:, self.prefix :])
        norm = _norm_after_pooling(self.net)
        if norm is None:
            return [pooled]
        parts = pooled.unflatten(1, (self.parts, -1)).flatten(0, 1)
        parts = norm(parts[:, :, None, None]).flatten(1) if isinstance(norm, LayerNorm2d) else norm(parts)
        return [parts.unflatten(0, (-1, self.parts)).flatten(1)]

    def adapt(self, tensors: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
        """Give the tensors of a timm file our names, and resize its learned positions, where it has any.

        Raises:
            CheckpointError: the positions cannot be resized.
        """
        expected = self.state_dict()
        adapted = with_prefix(tensors, self)
        positions = expected.get("net.pos_embed")
        if positions is not None and "net.pos_embed" in adapted and hasattr(self.net, "patch_embed"):
            adapted["net.pos_embed"] = resize_positions(adapted["net.pos_embed"], self._positions(), source)
        if "pool.gem.p" in expected:
            adapted.setdefault("pool.gem.p", expected["pool.gem.p"])
        return adapted

    def _positions(self) -> Any:
        """The network, as what `resize_positions` takes."""
        net = self.net
        net.prefix = self.prefix
        net.no_embed_class = getattr(net, "no_embed_class", False)
        return net


def _norm_after_pooling(net: Any) -> nn.Module | None:
    """The network's norm that comes after its pooling; None where it has none."""
    for norm in (getattr(net, "fc_norm", None), getattr(getattr(net, "head", None), "norm", None)):
        if norm is not None and not isinstance(norm, nn.Identity):
            return cast(nn.Module, norm)
    return None
