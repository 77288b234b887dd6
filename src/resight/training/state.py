"""The state of training: create it, save it, and restore it from a checkpoint."""

import copy
import os
import shutil
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from resight.config.run import Run
from resight.errors import CheckpointError, ConfigError
from resight.losses.center import CenterLoss
from resight.models.backbones.backbone import Backbone
from resight.models.backbones.vit import ViT
from resight.models.checkpoint import load_model
from resight.models.fusion import FusedBackbone
from resight.models.pretrained import load_pretrained
from resight.models.transreid import TransReID
from resight.progress import counted
from resight.training.checkpoint_files import SHARDS
from resight.training.context import TrainContext
from resight.training.distillation import Distiller
from resight.training.distributed import DistributedContext
from resight.training.fsdp import load_whole, read_shards, shard
from resight.training.optimizer import make_optimizer, parameter_groups


@dataclass
class State:
    """Everything that a training step or epoch changes."""

    model: TransReID
    backbone: nn.Module
    """The model's backbone, wrapped for distributed training."""
    average: TransReID | None
    """The moving average of the model's weights; None without EMA."""
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    center: CenterLoss | None
    center_optimizer: torch.optim.Optimizer | None
    distiller: Distiller | None = None
    """The teacher, and the projection to its width; None for a training without a teacher."""
    sharded: bool = False
    """Whether FSDP shards the backbone; `dump` then leaves the weights and the optimizer out."""
    epoch: int = 1
    """The current or next epoch, from 1."""
    step: int = 0
    """Completed steps of the epoch."""
    best: float = -1.0
    """The best mAP so far on the images that select the checkpoint."""
    sums: dict[str, float] = field(default_factory=dict)
    """Sums of the epoch's figures over its steps so far."""

    @property
    def parameters(self) -> list[nn.Parameter]:
        """What the optimizer trains, and what is not trained of the model: its parameters, and the projection's."""
        return [*self.model.parameters(), *([] if self.distiller is None else dict(self.distiller.parameters).values())]

    @property
    def eval_model(self) -> TransReID:
        """The model that is evaluated and saved: the average, if there is one."""
        return self.model if self.average is None else self.average

    def dump(self) -> dict[str, Any]:
        """Return the state for `torch.save`, without the weights of `eval_model`, which the checkpoint has anyway."""
        return {
            "model": None if self.average is None or self.sharded else self.model.state_dict(),
            "optimizer": None if self.sharded else self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "center": None if self.center is None else self.center.state_dict(),
            "distillation": None if self.distiller is None else self.distiller.dump(),
            "position": {"epoch": self.epoch, "step": self.step, "best": self.best, "sums": self.sums},
        }

    def restore(self, stored: dict[str, Any]) -> None:
        """Load a state that `dump` returned."""
        if not self.sharded:
            if self.average is not None:
                self.model.load_state_dict(stored["model"])
            self.optimizer.load_state_dict(stored["optimizer"])
        self.scaler.load_state_dict(stored["scaler"])
        if self.center is not None:
            self.center.load_state_dict(stored["center"])
        if self.distiller is not None:
            self.distiller.restore(stored["distillation"])
        for name, value in stored["position"].items():
            setattr(self, name, value)


def resume(context: TrainContext, state: State) -> None:
    """Load the last checkpoint, if the run has one.

    Raises:
        ConfigError: the checkpoint is of another training set.
        CheckpointError: the checkpoint is corrupt, or does not fit the run.
    """
    folder = context.folder
    stored = None if folder is None else folder.read_state(check_shards=context.distributed.is_main)
    if folder is None:
        return
    if stored is None:
        if state.distiller is not None and context.distributed.is_main:
            state.distiller.record(folder)
        return
    if state.distiller is not None:
        state.distiller.require_same(folder)
    model, card = load_model(folder.last)
    if card.vocabulary != context.card.vocabulary:
        raise ConfigError(
            f"the training set differs from the one that {folder.path} was started with: it has other identities, "
            "cameras or views; start a new run for it"
        )
    if state.sharded:
        load_whole(state.eval_model, model.state_dict())
        read_shards(folder.last / SHARDS, state.model, state.optimizer)
    else:
        state.eval_model.load_state_dict(model.state_dict())
    try:
        state.restore(stored)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"the training state in {folder.last} does not fit the run's configuration ({error}): start a new run"
        ) from error
    if context.distributed.is_main:
        folder.forget_after(state.epoch - 1)
    epochs = context.run.schedule.epochs
    if state.epoch > epochs:
        context.progress.log(
            f"the run is finished ({counted(epochs, 'epoch')}): nothing is trained, its best checkpoint is evaluated"
        )
        return
    context.progress.log(f"resumed in epoch {state.epoch} of {epochs}, after {counted(state.step, 'step')}")


def start(context: TrainContext) -> State:
    """Create a new state: the model with its pre-trained weights, and the optimizers.

    Raises:
        ConfigError: options exclude each other.
        CheckpointError: the pre-trained weights cannot be loaded.
    """
    run, device = context.run, context.distributed.device
    torch.manual_seed(run.seed)
    model = context.card.build()
    _require_fit(run, context.distributed, model.backbone)
    if run.weights is not None:
        left_out = load_pretrained(model.backbone, run.weights, run.model.backbone)
        without = f", without {', '.join(left_out)}" if left_out else ""
        context.progress.log(f"pre-trained weights from {run.weights}{without}")
    model.to(device)
    model.backbone.gradient_checkpointing = run.gradient_checkpointing
    if run.compile and isinstance(model.backbone, ViT):
        model.backbone.compile_blocks()
    average = copy.deepcopy(model).requires_grad_(False) if run.optimizer.ema else None
    backbone = trained_part(model)
    if run.fsdp:
        shard(backbone, context.distributed.size, device)
        if average is not None:
            shard(trained_part(average), context.distributed.size, device)
    else:
        backbone = context.distributed.wrap(backbone)
    layers = {f"backbone.{name}": layer for name, layer in model.backbone.layers.items()}
    distiller = Distiller.create(run, context.card, model, context.compute)
    if distiller is not None:
        context.progress.log(distiller.description)
    parameters = [*model.named_parameters(), *([] if distiller is None else distiller.parameters)]
    groups = parameter_groups(parameters, run.optimizer, model.backbone.depth, layers)
    optimizer = make_optimizer(groups, run.optimizer)
    center = center_optimizer = None
    if run.loss.center_weight:
        center = CenterLoss(len(context.card.vocabulary.identities), model.backbone.widths[0]).to(device)
        center_optimizer = torch.optim.SGD(center.parameters(), lr=run.loss.center_lr)
    scaler = torch.amp.GradScaler(device.type, enabled=context.compute.precision == "fp16")
    return State(model, backbone, average, optimizer, scaler, center, center_optimizer, distiller, run.fsdp)


def trained_part(model: TransReID) -> nn.Module:
    """Return what computes the features: the backbone, with the fusion of modalities where the network has one."""
    return model.backbone if model.fusion is None else FusedBackbone(model.backbone, model.fusion)


def _require_fit(run: Run, distributed: DistributedContext, backbone: Backbone) -> None:
    """Check the options against the backbone, the device and the number of processes."""
    name = run.model.backbone
    if backbone.has_batch_norm:
        if run.micro_batch_size is not None:
            raise ConfigError(f"--micro-batch-size needs a backbone without BatchNorm, and {name} has it: leave it out")
        if distributed.size > 1:
            raise ConfigError(
                f"{name} has BatchNorm, which several processes would compute on parts of a batch: use one process"
            )
    if run.gradient_checkpointing and not backbone.has_blocks:
        raise ConfigError(f"--gradient-checkpointing needs transformer blocks, and {name} has none")
    if run.compile and not isinstance(backbone, ViT):
        raise ConfigError(f"--compile is for plain vision transformers, and {name} is none: leave it out")
    if run.fsdp:
        _require_shards(run, distributed, backbone)
    if run.compile:
        _require_compiler(distributed.device)


def _require_shards(run: Run, distributed: DistributedContext, backbone: Backbone) -> None:
    """Check the options against FSDP."""
    if distributed.size == 1:
        raise ConfigError("--fsdp is for several processes: start them with torchrun, or leave --fsdp out")
    excluded = {
        "--micro-batch-size": run.micro_batch_size,
        "--compile": run.compile,
        "--precision fp16": run.precision == "fp16",
    }
    for name, is_set in excluded.items():
        if is_set:
            raise ConfigError(f"--fsdp and {name} exclude each other: leave one out")
    if not isinstance(backbone, ViT):
        raise ConfigError(
            f"--fsdp is for plain vision transformers, and {run.model.backbone} is none: leave --fsdp out"
        )


def _require_compiler(device: torch.device) -> None:
    """Check for the C++ compiler that torch.compile uses on a CPU."""
    if device.type == "cpu" and not any(map(shutil.which, (os.environ.get("CXX", "c++"), "g++", "clang++"))):
        raise ConfigError(
            "--compile needs a C++ compiler, and no g++ is on the path: install one, or leave --compile out"
        )
