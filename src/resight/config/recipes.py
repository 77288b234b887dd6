"""Recipes: functions that return a complete configuration. Variants derive from one another.

The transformer recipes are those that He et al. (2021) released; the values that they have in common are the defaults
of the sections.
"""

from collections.abc import Callable
from typing import Any

from resight.config.optimization import Optimizer, Schedule
from resight.config.run import Run
from resight.config.section import Section
from resight.config.sections import Augmentation, Embedding, Loss, Model, Preprocessing, Sampling
from resight.errors import unknown

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's
_IMAGENET = {"mean": _MEAN, "std": _STD}


def baseline_market() -> Run:
    """The ViT-B/16 baseline on Market-1501: without side information or JPM."""
    return Run(recipe="baseline-market", dataset="market1501", weights="timm")


def transreid_market() -> Run:
    """TransReID, ViT-B/16, stride 12, SIE(camera) and JPM, on Market-1501."""
    model = {"stride": 12, "sie": ("camera",), "jpm": True}
    return vary(baseline_market(), recipe="transreid-market", model=model)


def transreid_duke() -> Run:
    """TransReID on DukeMTMC-reID."""
    return vary(transreid_market(), recipe="transreid-duke", dataset="dukemtmc")


def transreid_msmt17() -> Run:
    """TransReID on MSMT17."""
    return vary(transreid_market(), recipe="transreid-msmt17", dataset="msmt17")


def transreid_occluded_duke() -> Run:
    """TransReID on Occluded-Duke, stride 11."""
    return vary(transreid_market(), recipe="transreid-occluded-duke", dataset="occluded-duke", model={"stride": 11})


def deit_market() -> Run:
    """TransReID over DeiT-B on Market-1501, with a higher probability of erasing."""
    model = {"backbone": "deit_base_patch16_224"}
    return vary(transreid_market(), recipe="deit-market", model=model, augmentation={"erase": 0.8})


def deit_duke() -> Run:
    """TransReID over DeiT-B on DukeMTMC-reID."""
    return vary(deit_market(), recipe="deit-duke", dataset="dukemtmc")


def deit_msmt17() -> Run:
    """TransReID over DeiT-B on MSMT17."""
    return vary(deit_market(), recipe="deit-msmt17", dataset="msmt17", optimizer={"lr": 0.005})


def deit_occluded_duke() -> Run:
    """TransReID over DeiT-B on Occluded-Duke, stride 11."""
    return vary(deit_market(), recipe="deit-occluded-duke", dataset="occluded-duke", model={"stride": 11})


def vit_small_msmt17() -> Run:
    """The reference's old small ViT on MSMT17, without side information or JPM; its weights must be given as a file."""
    model = {"backbone": "legacy_vit_small", "stride": None, "sie": (), "jpm": False}
    return vary(deit_msmt17(), recipe="vit-small-msmt17", weights=None, model=model)


def deit_small_msmt17() -> Run:
    """DeiT-S on MSMT17, without side information or JPM."""
    return vary(
        vit_small_msmt17(), recipe="deit-small-msmt17", weights="timm", model={"backbone": "deit_small_patch16_224"}
    )


def transreid_veri() -> Run:
    """TransReID on VeRi-776: square images, SIE(camera x view), a longer shift."""
    model = {"stride": 12, "sie": ("camera", "view"), "jpm": True, "jpm_shift": 8}
    square = vary(baseline_market(), preprocessing={"size": (256, 256)}, optimizer={"lr": 0.01})
    return vary(square, recipe="transreid-veri", dataset="veri776", model=model)


def transreid_vehicleid() -> Run:
    """TransReID on VehicleID, which has no camera labels: batches of 56 x 4."""
    changed = vary(transreid_veri(), recipe="transreid-vehicleid", dataset="vehicleid", optimizer={"lr": 0.045})
    return vary(changed, model={"sie": ()}, sampling={"identities": 56})


def deit_veri() -> Run:
    """TransReID over DeiT-B on VeRi-776, with ImageNet's mean and standard deviation."""
    model = {"backbone": "deit_base_patch16_224"}
    return vary(transreid_veri(), recipe="deit-veri", model=model, preprocessing=_IMAGENET, augmentation={"erase": 0.8})


def deit_vehicleid() -> Run:
    """TransReID over DeiT-B on VehicleID: batches of 64 x 4."""
    changed = vary(transreid_vehicleid(), recipe="deit-vehicleid", preprocessing=_IMAGENET, augmentation={"erase": 0.8})
    backbone = {"backbone": "deit_base_patch16_224"}
    return vary(changed, model=backbone, optimizer={"lr": 0.03}, sampling={"identities": 64})


def transreid_trimodal() -> Run:
    """One ViT-B/16 for three registered modalities, which SIE(modality) distinguishes, on RGBNT201."""
    model = {"sie": ("modality",)}
    preprocessing = {"size": (224, 224)}
    return vary(
        baseline_market(), recipe="transreid-trimodal", dataset="rgbnt201", model=model, preprocessing=preprocessing
    )


def trimodal_fusion() -> Run:
    """Three registered modalities, fused by cross-modal attention; any of them may be missing. On RGBNT201."""
    return vary(
        transreid_trimodal(),
        recipe="trimodal-fusion",
        model={"fusion": "attention"},
        augmentation={"drop_modality": 0.3},
    )


def resnet50_market() -> Run:
    """The CNN baseline (Luo et al. 2019) on Market-1501."""
    return Run(
        recipe="resnet50-market",
        weights="timm",
        model=Model(backbone="resnet50", feature="after"),
        preprocessing=Preprocessing(mean=_MEAN, std=_STD, test_interpolation="bicubic"),
        optimizer=Optimizer(name="adam", lr=3.5e-4, weight_decay=5e-4, bias_weight_decay=5e-4, bias_lr_factor=1),
        schedule=Schedule(name="multistep", warmup_epochs=10),
    )


def cuhk03() -> Run:
    """CUHK03-NP on two CPU cores in half an hour: ViT-S/14 (DINOv2) at 154x70, layer-wise learning rates."""
    return Run(
        recipe="cuhk03",
        dataset="cuhk03",
        weights="timm",
        preprocessing=Preprocessing(size=(154, 70), mean=_MEAN, std=_STD),
        model=Model(backbone="vit_small_patch14_dinov2"),
        augmentation=Augmentation(pad=6),
        optimizer=Optimizer(
            name="adamw",
            lr=3e-4,
            weight_decay=0.05,
            decay_vectors=False,
            bias_lr_factor=1,
            head_lr_factor=5,
            layer_decay=0.8,
        ),
        schedule=Schedule(epochs=20, warmup_epochs=1, every="step"),
        embedding=Embedding(flip=True),
    )


def cuhk03_jpm() -> Run:
    """The recipe `cuhk03` with JPM and SIE(camera)."""
    return vary(cuhk03(), recipe="cuhk03-jpm", model={"jpm": True, "sie": ("camera",)})


def own() -> Run:  # words: ok
    """Your own images: a table, or a folder for each identity. Held-out identities select the best checkpoint."""
    changed = vary(cuhk03(), recipe="own", dataset="own", validation_fraction=0.1, evaluate_every=5)
    return vary(changed, preprocessing={"size": (224, 112)}, schedule={"epochs": 30})


def edge() -> Run:
    """A small network for weak processors, on your own images; exported to int8. A teacher makes it better."""
    optimizer = {"lr": 1e-3, "head_lr_factor": 2, "layer_decay": 1}
    changed = vary(own(), recipe="edge", optimizer=optimizer, schedule={"epochs": 60, "warmup_epochs": 3})
    model = {"backbone": "vit_tiny_patch16_224"}
    return vary(changed, model=model, preprocessing={"size": (256, 128)}, embedding={"flip": False})


def tiny() -> Run:
    """A small three-modality TransReID (SIE(modality), JPM) that learns the synthetic data set from random weights."""
    return Run(
        recipe="tiny",
        dataset="synthetic",
        preprocessing=Preprocessing(size=(96, 48)),
        model=Model(backbone="test_vit", sie=("modality",), jpm=True, drop_path=0.0),
        augmentation=Augmentation(pad=4, erase=0.0),
        sampling=Sampling(identities=8, instances=4),
        loss=Loss(triplet_within="modality"),
        optimizer=Optimizer(
            name="adamw", lr=2e-3, weight_decay=0.05, decay_vectors=False, bias_lr_factor=1, head_lr_factor=5
        ),
        schedule=Schedule(epochs=46, warmup_epochs=2, every="step"),
    )


RECIPES: dict[str, Callable[[], Run]] = {
    function.__name__.replace("_", "-"): function
    for function in (
        tiny, own, edge, cuhk03, cuhk03_jpm, baseline_market, resnet50_market,
        transreid_market, transreid_duke, transreid_msmt17, transreid_occluded_duke, transreid_veri,
        transreid_vehicleid, transreid_trimodal, trimodal_fusion, deit_market, deit_duke, deit_msmt17,
        deit_occluded_duke, deit_veri, deit_vehicleid, vit_small_msmt17, deit_small_msmt17,
    )
}  # fmt: skip


def find(name: str) -> Run:
    """Return the recipe of that name.

    Raises:
        ConfigError: there is no such recipe; lists the known ones.
    """
    if name not in RECIPES:
        raise unknown("recipe", name, RECIPES)
    return RECIPES[name]()


def vary(run: Run, **changes: Any) -> Run:
    """Return a copy of a run with other values of some fields; a section is changed by a dict of its fields.

    Raises:
        ConfigError: a field does not exist, or a value is invalid.

    Example:
        `vary(cuhk03(), seed=1, schedule={"epochs": 5})`
    """
    values = dict[str, Any]()
    for name, change in changes.items():
        section = getattr(run, name, None)
        if isinstance(section, Section) and isinstance(change, dict):
            change = section.model_dump() | change
        values[name] = change
    return run.changed(**values)
