"""The guided tour: one real pass through a model, and the shape of every tensor on the way, measured by hooks."""

import inspect
import re
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.hooks import RemovableHandle

from resight.models.blocks import Attention
from resight.models.transreid import TransReID

# What a reader of the paper calls the modules; the rest are inside of these.
_STAGES = (
    (r"backbone\.patch_embed", "patches"),
    (r"backbone\.sie", "side information"),
    (r"backbone\.norm_pre", "tokens"),
    (r"backbone\.blocks\.0\.norm1", "  norm"),
    (r"backbone\.blocks\.0\.attn\.split", "  qkv"),
    (r"backbone\.blocks\.0\.attn\.weights", "  attention"),
    (r"backbone\.blocks\.0\.attn", "  attended"),
    (r"backbone\.blocks\.0\.mlp\.act", "  MLP, hidden"),
    (r"backbone\.blocks\.(\d+)", "block {}"),
    (r"backbone\.norm", "global feature"),
    (r"backbone\.jpm\.block\.attn\.weights", "  attention of the parts"),
    (r"backbone\.jpm\.block", "parts, shared block"),
    (r"backbone\.jpm\.norm", "local features"),
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


def summarize_model(model: TransReID, images: Tensor, side_info: dict[str, Tensor]) -> list[Stage]:
    """Runs the model once and lists what came out of each stage, in the order in which it did.

    Args:
        model: on any device; is put in evaluation mode.
        pictures: [B, 3, H, W], normalised.
        side: labels, int64 [B] by kind.
    """
    model.eval()
    with _watched(model) as seen, torch.no_grad():
        with FlopCounterMode(display=False) as counter:
            model(images, side_info)
        embedding = model.embed(images, side_info)
    flops = {name.partition(".")[2]: sum(by.values()) for name, by in counter.get_flop_counts().items()}
    return [
        Stage("image", "the picture, normalised", list(images.shape), 0, 0),
        *(
            Stage(_title(name), _made_by(name, module, model), shape, _count(module), flops.get(name, 0))
            for name, (module, shape) in seen.items()
        ),
        Stage("embedding", _source(model, "embed"), list(embedding.shape), _count(model), counter.get_total_flops()),
    ]


@contextmanager
def _watched(model: TransReID) -> Generator[dict[str, tuple[nn.Module, list[int]]]]:
    """Fills a dict with each stage's module and the shape of its first output, in the order in which they came."""
    seen: dict[str, tuple[nn.Module, list[int]]] = {}

    def watch(name: str, module: nn.Module) -> RemovableHandle:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            seen.setdefault(name, (module, list(output.shape)))

        return module.register_forward_hook(hook)

    attentions = [module for module in model.modules() if isinstance(module, Attention)]
    handles = [watch(name, module) for name, module in model.named_modules() if _title(name)]
    try:
        for attention in attentions:
            attention.explicit = True  # so that the weights are formed, and can be seen
        yield seen
    finally:
        for attention in attentions:
            attention.explicit = False
        for handle in handles:
            handle.remove()


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


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
