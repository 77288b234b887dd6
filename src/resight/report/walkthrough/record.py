"""Recording of tensors by hooks while a model computes."""

import inspect
import re
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from resight.models.backbones.eva import Eva
from resight.models.backbones.per_modality import PerModality
from resight.models.backbones.vit import ViT
from resight.models.blocks import Attention
from resight.models.fusion import Fused
from resight.models.transreid import TransReID
from resight.report.walkthrough.rules import COMMON_RULES, VIT_RULES, Rule, plain_name
from resight.report.walkthrough.rules_networks import NETWORK_RULES


@dataclass
class Recorded:
    """A tensor that went into or came out of a module."""

    rule: Rule
    name: str
    """Of the module in the model."""
    module: nn.Module
    tensor: Tensor
    source: str
    """The file, class and method that compute it; empty where that is not known."""
    weights: Tensor | None = None
    """Float32 [N, M]: the share of each modality, of a fusion."""
    gradient: float | None = None
    """The norm of the loss's gradient on it, once the backward pass is over."""

    def record_gradient(self, gradient: Tensor) -> None:
        """Keep the norm of the loss's gradient on the tensor."""
        self.gradient = float(gradient.norm())

    @property
    def number(self) -> int | None:
        """The module's number among those of the same rule."""
        match = re.fullmatch(self.rule.pattern, plain_name(self.name))
        return int(match.group(1)) + self.rule.counts_from if match and match.groups() else None


@contextmanager
def recorded(model: TransReID) -> Generator[list[Recorded]]:
    """Record the first input or output of each module that a rule names, in the order of computation.

    Attention weights are computed as a tensor meanwhile, so that they can be recorded. Afterwards the model has no
    hooks, and computes as before.
    """
    records: list[Recorded] = []
    attentions = [module for module in model.modules() if isinstance(module, Attention)]
    explicit = [attention.explicit for attention in attentions]
    handles = [_watch(records, *selected) for selected in _choose(model)]
    try:
        for attention in attentions:
            attention.explicit = True
        yield records
    finally:
        for attention, before in zip(attentions, explicit, strict=True):
            attention.explicit = before
        for handle in handles:
            handle.remove()


def first_backbone(model: TransReID) -> nn.Module:
    """Return the backbone; of several, the first."""
    return model.backbone.first if isinstance(model.backbone, PerModality) else model.backbone


def _choose(model: TransReID) -> list[tuple[Rule, str, nn.Module, str]]:
    """The modules that are recorded: rule, name, module, and what computes the tensor."""
    backbone = first_backbone(model)
    rules = (*(VIT_RULES if isinstance(backbone, ViT | Eva) else NETWORK_RULES), *COMMON_RULES)
    names = {name: _rules_of(name, rules) for name, _ in model.named_modules()}
    unnamed = _unnamed(model, [name for name, matching in names.items() if matching])
    selected = [(rule, name, module) for name, module in model.named_modules() for rule in names[name]]
    # An identity computes nothing; the tokens are recorded at that before the blocks.
    selected = [item for item in selected if item[0].name == "tokens" or not isinstance(item[2], nn.Identity)]
    selected += [(_rule_of_child(name), name, module) for name, module in unnamed]
    stated = isinstance(backbone, ViT)
    return [(rule, name, module, _source(rule, module, stated)) for rule, name, module in selected]


def _source(rule: Rule, module: nn.Module, is_plain: bool) -> str:
    if rule.source and (is_plain or rule.part == "heads"):
        return rule.source
    return "" if rule.of_input or rule.source else source_of(module)


def _watch(records: list[Recorded], rule: Rule, name: str, module: nn.Module, source: str) -> Any:
    """Add a hook that records the first call."""

    def record(value: Any) -> None:
        if any(item.rule is rule and item.name == name for item in records):
            return
        weights = value.weights if isinstance(value, Fused) else None
        tensor = _tensor(value)
        if tensor is None:
            return
        item = Recorded(rule, name, module, tensor.detach(), source, None if weights is None else weights.detach())
        records.append(item)
        if tensor.requires_grad:
            tensor.register_hook(item.record_gradient)

    if rule.of_input:
        return module.register_forward_pre_hook(lambda module, inputs: record(inputs))
    return module.register_forward_hook(lambda module, inputs, output: record(output))


def _tensor(value: Any) -> Tensor | None:
    """The tensor, or the first one of several."""
    if isinstance(value, Fused):
        return value.features[0]
    if isinstance(value, list | tuple):
        values = cast("list[Any]", value)
        return _tensor(values[0]) if values else None
    return value if isinstance(value, Tensor) else None


def _rules_of(name: str, rules: Sequence[Rule]) -> list[Rule]:
    if re.match(r"backbone\.nets\.[1-9]", name):  # the backbones of other modalities compute the same
        return []
    plain = plain_name(name)
    matching = [rule for rule in rules if re.fullmatch(rule.pattern, plain)]
    outputs = [rule for rule in matching if not rule.of_input]
    return [rule for rule in matching if rule.of_input] + outputs[:1]


def _unnamed(model: TransReID, named: Sequence[str]) -> list[tuple[str, nn.Module]]:
    """The children of the first backbone for which there is no rule, and none for anything in them."""
    backbone = first_backbone(model)
    prefix = "backbone.nets.0." if isinstance(model.backbone, PerModality) else "backbone."
    net = getattr(backbone, "net", None)
    if isinstance(net, nn.Module):
        prefix += "net."
    children = [
        (prefix + name, child) for name, child in (net if isinstance(net, nn.Module) else backbone).named_children()
    ]
    return [
        (name, child)
        for name, child in children
        if not any(other == name or other.startswith(f"{name}.") for other in named)
        and not isinstance(child, nn.Identity | nn.Dropout | nn.ModuleList)
    ]


def _rule_of_child(name: str) -> Rule:
    child = plain_name(name).rpartition(".")[2]
    return Rule("network", re.escape(plain_name(name)), child, lambda module: f"A part of the backbone of the class "
                f"`{type(module).__name__}`.")  # fmt: skip


def source_of(module: nn.Module, method: str = "forward") -> str:
    """Return the file, class and method that compute an output, such as `models/blocks.py Attention.forward`."""
    function = inspect.unwrap(getattr(type(module), method))
    file = Path(inspect.getsourcefile(function) or "?")
    return f"{file.parent.name}/{file.name} {function.__qualname__}"


def count(module: nn.Module) -> int:
    """Return the number of parameters of a module."""
    return sum(parameter.numel() for parameter in module.parameters())


def content_of(tensor: Tensor) -> list[Any] | None:
    """Return the values of a small tensor of one or two axes; None for others."""
    if tensor.ndim not in (1, 2) or tensor.numel() > 64:
        return None
    values = tensor.int() if tensor.dtype == torch.bool else tensor
    return [[round(x, 4) for x in row] for row in values.tolist()] if tensor.ndim == 2 else values.tolist()
