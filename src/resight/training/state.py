"""Everything that training changes: how it starts, and how it is taken over from a checkpoint."""

import copy
import os
import shutil
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from resight.config.run import Run
from resight.data.vocabulary import Vocabulary
from resight.device import Compute, resolve_compute
from resight.errors import ConfigError
from resight.losses.center import CenterLoss
from resight.models.backbones.resnet import RESNET
from resight.models.backbones.vit import ViT
from resight.models.checkpoint import ModelCard, load_model
from resight.models.transreid import TransReID
from resight.models.weights import load_pretrained
from resight.progress import Progress
from resight.training.distributed import DistributedContext
from resight.training.fsdp import load_whole, read_shards, shard
from resight.training.optimizer import make_optimizer, parameter_groups
from resight.training.run_folder import SHARDS, RunFolder


@dataclass
class State:
    """Everything that training changes."""

    model: TransReID
    backbone: nn.Module
    """The model's, as the team wraps it."""
    average: TransReID | None
    """The moving average of the model's weights, where one is kept."""
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    center: CenterLoss | None
    center_optimizer: torch.optim.Optimizer | None
    compute: Compute
    """What it is computed with."""
    sharded: bool = False
    """Whether the processes share the backbone's weights out; `dump` then leaves their state out."""
    epoch: int = 1
    """The epoch that comes next or is under way, from 1."""
    step: int = 0
    """Steps of it that are done."""
    best: float = -1.0
    """The best mAP so far of those that choose the checkpoint."""
    sums: dict[str, float] = field(default_factory=dict)
    """Of the epoch so far."""

    @property
    def eval_model(self) -> TransReID:
        """The model that is measured and kept: the average, where there is one."""
        return self.model if self.average is None else self.average

    def dump(self) -> dict[str, Any]:
        """All but the weights of `shown`, for `torch.save`."""
        return {
            "model": None if self.average is None or self.sharded else self.model.state_dict(),
            "optimizer": None if self.sharded else self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "center": None if self.center is None else self.center.state_dict(),
            "position": {"epoch": self.epoch, "step": self.step, "best": self.best, "sums": self.sums},
        }

    def restore(self, held: dict[str, Any]) -> None:
        """Takes over what `dump` gave."""
        if not self.sharded:
            if self.average is not None:
                self.model.load_state_dict(held["model"])
            self.optimizer.load_state_dict(held["optimizer"])
        self.scaler.load_state_dict(held["scaler"])
        if self.center is not None:
            self.center.load_state_dict(held["center"])
        for name, value in held["position"].items():
            setattr(self, name, value)


def resume(state: State, folder: RunFolder, card: ModelCard, progress: Progress, context: DistributedContext) -> None:
    """Takes over the last checkpoint, where there is one.

    Raises:
        ConfigError: it was trained on another data set.
    """
    held = folder.read_state()
    if held is None:
        return
    model, trained = load_model(folder.last)
    if trained.vocabulary != card.vocabulary:
        raise ConfigError(
            f"the training set is not the one that {folder.path} was begun with: it has other identities, cameras or "
            "views; start a new run for it"
        )
    if state.sharded:
        load_whole(state.eval_model, model.state_dict())
        read_shards(folder.last / SHARDS, state.model, state.optimizer)
    else:
        state.eval_model.load_state_dict(model.state_dict())
    state.restore(held)
    if context.is_main:
        folder.forget_after(state.epoch - 1)
    progress.log(f"going on in epoch {state.epoch} after {state.step} steps")


def start(
    run: Run, vocabulary: Vocabulary, context: DistributedContext, progress: Progress, compute: Compute | None = None
) -> State:
    """A fresh state: the model with its pre-trained weights, and the optimizers.

    Args:
        run: the whole configuration.
        vocabulary: of the training set.
        team: the processes that train together.
        screen: where progress is shown.
        compute: what is computed with; None to choose it for this machine.

    Raises:
        ConfigError: the settings do not go together.
    """
    device = context.device
    if run.micro_batch_size is not None and run.model.backbone == RESNET:
        raise ConfigError(f"--micro-batch-size needs a backbone without BatchNorm, which {RESNET} is not: leave it out")
    if (run.gradient_checkpointing or run.compile) and run.model.backbone == RESNET:
        raise ConfigError(
            f"--gradient-checkpointing and --compile are for the blocks of a transformer, which {RESNET} has none of"
        )
    if context.size > 1 and run.model.backbone == RESNET:
        raise ConfigError(f"{RESNET} has BatchNorm in it, which processes would take apart: train it in one process")
    if run.fsdp:
        _require_shards(run, context)
    torch.manual_seed(run.seed)
    model = TransReID(run.model, run.preprocessing.size, vocabulary)
    if run.weights is not None:
        left = load_pretrained(model.backbone, run.weights, run.model.backbone)
        progress.log(f"pre-trained weights from {run.weights}" + (f", without {', '.join(left)}" if left else ""))
    model.to(device)
    if isinstance(model.backbone, ViT):
        model.backbone.gradient_checkpointing = run.gradient_checkpointing
        if run.compile:
            _require_compiler(device)
            model.backbone.compile_blocks()
    depth = len(model.backbone.blocks) if isinstance(model.backbone, ViT) else 0
    average = copy.deepcopy(model).requires_grad_(False) if run.optimizer.ema else None
    backbone = model.backbone
    if run.fsdp:
        for each in (model, average):
            if each is not None:
                shard(each.backbone, context.size, device)
    else:
        backbone = context.wrap(model.backbone)
    optimizer = make_optimizer(parameter_groups(model.named_parameters(), run.optimizer, depth), run.optimizer)
    center = center_optimizer = None
    if run.loss.center_weight:
        center = CenterLoss(len(vocabulary.identities), model.backbone.width).to(device)
        center_optimizer = torch.optim.SGD(center.parameters(), lr=run.loss.center_lr)
    compute = compute or choose_compute(run, context)
    scaler = torch.amp.GradScaler(device.type, enabled=compute.precision == "fp16")
    return State(model, backbone, average, optimizer, scaler, center, center_optimizer, compute, run.fsdp)


def choose_compute(run: Run, context: DistributedContext) -> Compute:
    """What a run is computed with on this machine: the first process measures it, for all."""
    return context.of_first(resolve_compute(context.device, run.precision, run.evaluation.batch, training=True))


def _require_shards(run: Run, context: DistributedContext) -> None:
    """What goes together with weights that are shared out."""
    if context.size == 1:
        raise ConfigError("--fsdp is for several processes: start them with torchrun, or leave --fsdp out")
    against = {
        "--micro-batch-size": run.micro_batch_size,
        "--compile": run.compile,
        "--precision fp16": run.precision == "fp16",
    }
    for name, given in against.items():
        if given:
            raise ConfigError(f"--fsdp does not go together with {name}: leave one out")
    if run.model.backbone == RESNET:
        raise ConfigError(f"--fsdp is for the blocks of a transformer, which {RESNET} has none of")


def _require_compiler(device: torch.device) -> None:
    """torch.compile writes C++ for a CPU."""
    if device.type == "cpu" and not any(map(shutil.which, (os.environ.get("CXX", "c++"), "g++", "clang++"))):
        raise ConfigError(
            "--compile needs a C++ compiler, and no g++ is on the path: install one, or leave --compile out"
        )
