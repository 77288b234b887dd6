"""A summary of a model: one real forward pass, and the shape of every tensor between its stages, measured by hooks."""

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

from resight.config.run import Run
from resight.data.sightings import MODALITIES
from resight.models.blocks import Attention
from resight.models.convert.hub_timm import resolve_backbone
from resight.models.transreid import TransReID

BATCH_SIZE, IDENTITIES, CAMERAS, VIEWS = 2, 751, 6, 8
# The paper's names of the modules; modules without a name here are parts of these.
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
    (r"backbone\.(stem|bn3|net\.conv1)", "stem"),
    (r"backbone\.stages\.(\d)", "stage {}"),
    (r"backbone\.merges\.(\d)", "merged patches {}"),
    (r"backbone\.layer(\d)", "stage {}"),
    (r"backbone\.attnpool", "second feature"),
    (r"backbone\.map_norm", "last map"),
    (r"backbone\.fc", "global feature"),
    (r"backbone\.projection", "projected feature"),
    (r"backbone\.net\.patch_embed", "patches"),
    (r"backbone\.net\.blocks\.(\d+)", "block {}"),
    (r"backbone\.net\.(?:stages|layers)\.(\d+)", "stage {}"),
    (r"backbone\.net\.(?:stem|conv_stem)", "stem"),
    (r"backbone\.net\.layer(\d)", "stage {}"),
    (r"backbone\.net\.global_pool", "global feature"),
    (r"backbone\.pool", "pooled feature"),
    (r"necks\.(\d)", "BNNeck {}"),
    (r"heads\.(\d)", "logits {}"),
)
_FROM_ZERO = re.compile(r"backbone\.(net\.)?(blocks|stages|layers|merges)\.")  # printed from 1


@dataclass(frozen=True)
class Stage:
    """A tensor between two stages of the model, and the code that computes it."""

    name: str
    source: str
    """File and line of the code that computes it."""
    shape: list[int]
    parameters: int
    flops: int
    """Floating point operations for the batch; a multiply-add counts as two."""


def summarize(run: Run) -> list[Stage]:
    """Run a recipe's model once, with random weights, and list the tensors between its stages.

    No data set is read: the model is built for 751 identities, 6 cameras and 8 views; B = 2.

    Args:
        run: a recipe.

    Raises:
        ConfigError: its settings exclude each other.
    """
    modalities = len(MODALITIES) if "modality" in run.model.sie else 1
    counts = {"camera": CAMERAS, "view": VIEWS, "modality": modalities}
    model = TransReID(resolve_backbone(run.model), run.preprocessing.size, IDENTITIES, counts)
    side_info = {kind: torch.zeros(BATCH_SIZE, dtype=torch.int64) for kind in counts}
    return summarize_model(model, torch.randn(BATCH_SIZE, 3, *run.preprocessing.size), side_info)


def summarize_model(model: TransReID, images: Tensor, side_info: dict[str, Tensor]) -> list[Stage]:
    """Run the model once and list the output of each stage, in order.

    Args:
        model: on any device; is put in evaluation mode.
        images: [B, 3, H, W], preprocessed.
        side_info: labels, int64 [B] by kind.
    """
    model.eval()
    with _recorded(model) as outputs, torch.no_grad():
        with FlopCounterMode(display=False) as counter:
            model(images, side_info)
        embedding = model.embed(images, side_info)
    flops = {name.partition(".")[2]: sum(by.values()) for name, by in counter.get_flop_counts().items()}
    return [
        Stage("image", "the preprocessed image", list(images.shape), 0, 0),
        *(
            Stage(_title(name), _made_by(name, module, model), shape, _count(module), flops.get(name, 0))
            for name, (module, shape) in outputs.items()
        ),
        Stage("embedding", _source(model, "embed"), list(embedding.shape), _count(model), counter.get_total_flops()),
    ]


@contextmanager
def _recorded(model: TransReID) -> Generator[dict[str, tuple[nn.Module, list[int]]]]:
    """Record each stage's module and the shape of its first output, in order of computation, in the dict it yields."""
    outputs: dict[str, tuple[nn.Module, list[int]]] = {}

    def record(name: str, module: nn.Module) -> RemovableHandle:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            outputs.setdefault(name, (module, list(output.shape)))

        return module.register_forward_hook(hook)

    attentions = [module for module in model.modules() if isinstance(module, Attention)]
    handles = [record(name, module) for name, module in model.named_modules() if _title(name)]
    try:
        for attention in attentions:
            attention.explicit = True  # the weights are then a tensor that a hook can record
        yield outputs
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
            if "{}" not in title:
                return title
            return title.format(int(match.group(1)) + bool(_FROM_ZERO.match(name)))
    return ""


def _made_by(name: str, module: nn.Module, model: TransReID) -> str:
    if name == "backbone.norm_pre":  # the hook records the tokens here, but another method computes them
        return _source(model.backbone, "tokens")
    return _source(module)


def _source(module: nn.Module, method: str = "forward") -> str:
    function = inspect.unwrap(getattr(type(module), method))
    file = Path(inspect.getsourcefile(function) or "?")
    return f"{file.parent.name}/{file.name}:{inspect.getsourcelines(function)[1]}"
