"""The steps of a walkthrough before and after the network: the batch, the losses and the optimizer's groups."""

from collections.abc import Mapping

import torch
from torch import Tensor

from resight.config.run import Run
from resight.data.loader import Batch
from resight.losses.triplet import distances
from resight.models.transreid import TransReID
from resight.report.walkthrough.record import Recorded, content_of, count, first_backbone, source_of
from resight.report.walkthrough.value import Step
from resight.training.state import State


def tensor_step(name: str, text: str, tensor: Tensor, axes: tuple[str, ...] = (), source: str = "") -> Step:
    """Return a step of a tensor, with its values where it is small."""
    return Step(name, text, tuple(tensor.shape), axes, _dtype(tensor), content_of(tensor), source=source)


def batch_steps(batch: Batch, images: Tensor, side_info: Mapping[str, Tensor], rows: Tensor | None) -> list[Step]:
    """Return the steps of the loader's batch, and of what the network gets of it.

    Args:
        batch: of the loader.
        images: float32 [R, 3, H, W], what enters the network.
        side_info: int64 [R] by kind, those that are shown.
        rows: int64 [B, M], or None where the network does not fuse.
    """
    loader = "data/loader.py Loader.batches"
    steps = [
        tensor_step("images", "B sightings of M modalities: P identities x K sightings of each, decoded and resized; "
                    "the pixels are still numbers from 0 to 255, and what is absent is zeros, which are not used.",
                    batch.images, ("B", "M", "3", "H", "W"), loader),
        tensor_step("present", "The mask of the modalities: 1 where a sighting has an image of that modality.",
                    batch.present, ("B", "M"), loader),
        tensor_step("identity", "Who or what is shown, as a number of the training set's identities.",
                    batch.identity, ("B",), loader),
        tensor_step("camera", "Which camera took the sighting; -1 would be unknown.", batch.camera, ("B",), loader),
        tensor_step("view", "From which side it was taken; -1 would be unknown.", batch.view, ("B",), loader),
        tensor_step("images for the network", "Augmented (flip, crop, erasing), normalised to about -1 to 1, and the "
                    "images that are present put one after another: R rows, none for what is absent.",
                    images, ("R", "3", "H", "W"), "training/step.py train_step"),
    ]  # fmt: skip
    for kind, labels in side_info.items():
        text = f"The {kind} of each of the R images, in the same order."
        steps.append(tensor_step(f"{kind} of each image", text, labels, ("R",), "data/loader.py Batch.side_info"))
    if rows is not None:
        steps.append(
            tensor_step("rows", "For each sighting and modality the row of its image among the R; -1 where it is "
                        "absent (augmentation may leave out more than the mask says).", rows, ("B", "M"),
                        "data/loader.py Batch.rows")
        )  # fmt: skip
    return steps


def token_parameters(model: TransReID) -> list[Step]:
    """Return the steps of the parameters that are joined or added to the tokens."""
    backbone = first_backbone(model)
    source = source_of(backbone, "tokens") if hasattr(backbone, "tokens") else ""
    backbone = backbone if hasattr(backbone, "cls_token") else getattr(backbone, "net", backbone)
    texts = {
        "cls_token": ("class token", "One learned vector, the same for every image, is put before the patches; what "
                      "it collects becomes the feature.", ("1", "1", "D")),
        "reg_token": ("registers", "Learned vectors that the model uses as memory; no feature is read from them.",
                      ("1", "", "D")),
        "pos_embed": ("position", "One learned vector for each token tells where it is; its first axis has length 1, "
                      "so it is repeated for all R images and added.", ("1", "", "D")),
    }  # fmt: skip
    steps: list[Step] = []
    for attribute, (name, text, axes) in texts.items():
        value = getattr(backbone, attribute, None)
        if isinstance(value, Tensor):
            shape, gradient = tuple(value.shape), value.grad
            norm = None if gradient is None else float(gradient.norm())
            steps.append(Step(name, text, shape, axes if len(axes) == len(shape) else (), _dtype(value),
                              parameters=value.numel(), gradient=norm, source=source))  # fmt: skip
    return steps


def loss_steps(run: Run, values: dict[str, Tensor], features: Recorded | None) -> list[Step]:
    """Return the steps of the losses.

    Args:
        run: the recipe.
        values: what the step of training returned.
        features: what entered the first BNNeck.
    """
    loss, steps = run.loss, list[Step]()
    if features is not None:
        x = torch.nn.functional.normalize(features.tensor) if loss.triplet_normalize else features.tensor
        steps.append(
            tensor_step("distances", "The Euclidean distance of every pair of features of the first branch.",
                        distances(x, x), ("S", "S"), "losses/triplet.py distances")
        )  # fmt: skip
    margin = "softplus" if loss.triplet_margin is None else f"a hinge with margin {loss.triplet_margin:g}"
    rows = "all rows of its modality" if loss.triplet_within == "modality" else "all rows of the batch"
    branches = " With parts, half of the weight is on the global branch." if run.model.jpm else ""
    texts = [
        ("id", "identity loss", loss.id_weight, "Cross-entropy: how improbable the logits make the right identity."),
        ("triplet", "triplet loss", loss.triplet_weight, f"For each row the farthest of the same identity and the "
         f"nearest of another one among {rows}; {margin} of the difference, averaged."),
        ("center", "center loss", loss.center_weight, "The squared distance of each feature to the learned center of "
         "its identity."),
        ("cross_modal", "cross-modal loss", loss.cross_modal_weight, "For each row, how improbable its identity is "
         "among the rows of other modalities, by a softmax over their cosines."),
    ]  # fmt: skip
    for key, name, weight, text in texts:
        if key in values:
            figures = {"value": float(values[key]), "weight": weight}
            steps.append(Step(name, text + branches, figures=figures, source="losses/objective.py objective"))
    figures = {"value": float(values["loss"]), "accuracy": float(values["accuracy"])}
    text = "The weighted sum; from this one number the gradients of all parameters are computed."
    return [*steps, Step("loss", text, figures=figures, source="training/step.py gradients")]


def optimizer_steps(state: State) -> list[Step]:
    """Return a step for each group of the optimizer's parameters, as it was after the step of training."""
    steps: list[Step] = []
    optimizers = [state.optimizer, *([] if state.center_optimizer is None else [state.center_optimizer])]
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            parameters: list[Tensor] = group["params"]
            names: list[str] = group.get("names", ["centers"])
            norms = [parameter.grad.norm() for parameter in parameters if parameter.grad is not None]
            more = "" if len(names) == 1 else f" and {len(names) - 1} more tensors, with one learning rate and decay"
            figures = {
                "parameters": float(sum(parameter.numel() for parameter in parameters)),
                "learning rate": float(group.get("base", group["lr"]) * group.get("factor", 1.0)),
                "in epoch 1": float(group["lr"]),
                "weight decay": float(group["weight_decay"]),
            }
            gradient = float(torch.stack(norms).norm()) if norms else None
            text = f"{type(optimizer).__name__} changes `{names[0]}`{more}."
            name = f"group {len(steps) + 1}"
            source = "training/optimizer.py parameter_groups"
            steps.append(Step(name, text, figures=figures, gradient=gradient, source=source))
    return steps


def module_steps(records: list[Recorded], flops: dict[str, int]) -> list[Step]:
    """Return a step for each recorded tensor; those of one rule and one shape become one step.

    Args:
        records: of one part, in order.
        flops: by the module's name.
    """
    groups: dict[tuple[int, tuple[int, ...]], list[Recorded]] = {}
    for record in records:
        groups.setdefault((id(record.rule), tuple(record.tensor.shape)), []).append(record)
    return [_module_step(group, flops) for group in groups.values()]


def _module_step(group: list[Recorded], flops: dict[str, int]) -> Step:
    first, rule = group[0], group[0].rule
    numbers = [record.number for record in group if record.number is not None]
    name = rule.name.format(numbers[0]) if numbers else rule.name
    if len(numbers) > 1:
        several = rule.name.replace(" {}", " {}" if "s {}" in rule.name else "s {}")
        name = several.format(f"{numbers[0]} to {numbers[-1]}")
    text = rule.text if isinstance(rule.text, str) else rule.text(first.module)
    shape = tuple(first.tensor.shape)
    axes = rule.axes if len(rule.axes) == len(shape) else ()
    computed = [] if rule.of_input else group
    return Step(
        name, text, shape, axes, _dtype(first.tensor), content_of(first.tensor),
        parameters=sum(count(record.module) for record in computed),
        flops=sum(flops.get(record.name, 0) for record in computed),
        gradient=first.gradient, source=first.source,
    )  # fmt: skip


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
