"""The guided tour: one real pass through a model, and the shape of every tensor on the way, measured by hooks."""

import inspect
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from resight.model.backbone import ViT
from resight.model.blocks import Block
from resight.model.transreid import TransReID

# What a reader of the paper calls the modules; the rest are inside of these.
_STAGES = (
    (r"backbone\.patch_embed", "patches"),
    (r"backbone\.side", "side information"),
    (r"backbone\.norm_pre", "tokens"),
    (r"backbone\.blocks\.0\.norm1", "  norm"),
    (r"backbone\.blocks\.0\.attn\.split", "  qkv"),
    (r"backbone\.blocks\.0\.attn\.weights", "  attention"),
    (r"backbone\.blocks\.0\.attn", "  attended"),
    (r"backbone\.blocks\.0\.mlp\.act", "  MLP, hidden"),
    (r"backbone\.blocks\.(\d+)", "block {}"),
    (r"backbone\.norm", "global feature"),
    (r"backbone\.jigsaw\.block\.attn\.weights", "  attention of the parts"),
    (r"backbone\.jigsaw\.block", "parts, shared block"),
    (r"backbone\.jigsaw\.norm", "local features"),
    (r"backbone\.net\.conv1", "stem"),
    (r"backbone\.net\.layer(\d)", "stage {}"),
    (r"backbone\.net\.global_pool", "global feature"),
    (r"necks\.(\d)", "BNNeck {}"),
    (r"heads\.(\d)", "logits {}"),
)


@dataclass(frozen=True)
class Stage:
    """A tensor on the way, and what made it."""

    name: str
    source: str
    """File and line of the code that made it."""
    shape: list[int]
    parameters: int
    flops: int
    """Floating point operations of the whole batch, a multiply-add counted as two."""


def tour(model: TransReID, pictures: Tensor, side: dict[str, Tensor]) -> list[Stage]:
    """Runs the model once and lists what came out of each stage, in the order in which it did.

    Args:
        model: on any device; is put in evaluation mode.
        pictures: [B, 3, H, W], normalised.
        side: labels, int64 [B] by kind.
    """
    model.eval()
    seen: dict[str, tuple[nn.Module, list[int]]] = {}

    def watch(name: str):
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and name not in seen:
                seen[name] = (module, list(output.shape))

        return hook

    handles = [module.register_forward_hook(watch(name)) for name, module in model.named_modules() if _title(name)]
    if isinstance(model.backbone, ViT):
        opened = [model.backbone.blocks[0], *([model.backbone.jigsaw.block] if model.backbone.jigsaw else [])]
        for block in opened:
            assert isinstance(block, Block)
            block.attn.explicit = True  # so that the weights are formed, and seen
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(pictures, side)
        with torch.no_grad():
            embedding = model.embed(pictures, side)
    finally:
        for handle in handles:
            handle.remove()
        for module in model.modules():
            if hasattr(module, "explicit"):
                module.explicit = False  # pyright: ignore[reportAttributeAccessIssue, reportArgumentType]
    counts = {name.partition(".")[2]: sum(by.values()) for name, by in counter.get_flop_counts().items()}
    stages = [
        Stage(
            _title(name),
            _made_by(name, module, model),
            shape,
            sum(p.numel() for p in module.parameters()),
            counts.get(name, 0),
        )
        for name, (module, shape) in seen.items()
    ]
    total = sum(p.numel() for p in model.parameters())
    return [
        Stage("image", "the picture, normalised", list(pictures.shape), 0, 0),
        *stages,
        Stage("embedding", _source(model, "embed"), list(embedding.shape), total, counter.get_total_flops()),
    ]


def _title(name: str) -> str:
    for pattern, title in _STAGES:
        match = re.fullmatch(pattern, name)
        if match:
            number = int(match.group(1)) + (title == "block {}") if match.groups() else 0
            return title.format(number)
    return ""


def _made_by(name: str, module: nn.Module, model: TransReID) -> str:
    if name == "backbone.norm_pre":  # where tokens can be seen whole, but not where they are put together
        return _source(model.backbone, "tokens")
    return _source(module)


def _source(module: nn.Module, method: str = "forward") -> str:
    function = inspect.unwrap(getattr(type(module), method))
    file = Path(inspect.getsourcefile(function) or "?")
    return f"{file.parent.name}/{file.name}:{inspect.getsourcelines(function)[1]}"
