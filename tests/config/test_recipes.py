"""The values of every recipe, as differences from the defaults; those of TransReID are what its authors released."""

import pytest

from resight.config.recipes import RECIPES, find, tiny, vary
from resight.config.run import Run
from resight.errors import ConfigError

PRETRAINED = {"weights": "timm"}
IMAGENET = {"preprocessing.mean": (0.485, 0.456, 0.406), "preprocessing.std": (0.229, 0.224, 0.225)}
TRANSREID = PRETRAINED | {"model.stride": 12, "model.sie": ("camera",), "model.jpm": True}
DEIT = {"model.backbone": "deit_base_patch16_224", "augmentation.erase": 0.8}
SQUARE = {"preprocessing.size": (256, 256), "model.stride": 12, "model.jpm": True, "model.jpm_shift": 8} | PRETRAINED
VERI = SQUARE | {"dataset": "veri776", "model.sie": ("camera", "view"), "optimizer.lr": 0.01}
VEHICLEID = SQUARE | {"dataset": "vehicleid", "sampling.identities": 56, "optimizer.lr": 0.045}
SMALL = {"dataset": "msmt17", "augmentation.erase": 0.8, "optimizer.lr": 0.005}
ADAMW = {
    "optimizer.name": "adamw", "optimizer.weight_decay": 0.05, "optimizer.decay_vectors": False,
    "optimizer.bias_lr_factor": 1, "optimizer.head_lr_factor": 5, "schedule.every": "step",
}  # fmt: skip
CUHK03 = PRETRAINED | IMAGENET | ADAMW | {
    "dataset": "cuhk03", "preprocessing.size": (154, 70), "model.backbone": "vit_small_patch14_dinov2",
    "augmentation.pad": 6, "optimizer.lr": 3e-4, "optimizer.layer_decay": 0.8, "schedule.epochs": 20,
    "schedule.warmup_epochs": 1, "embedding.flip": True,
}  # fmt: skip
EXPECTED = {
    "tiny": ADAMW | {
        "dataset": "synthetic", "preprocessing.size": (96, 48), "model.backbone": "test_vit",
        "model.sie": ("modality",), "model.jpm": True, "model.drop_path": 0, "augmentation.pad": 4,
        "augmentation.erase": 0, "sampling.identities": 8, "loss.triplet_within": "modality", "optimizer.lr": 2e-3,
        "schedule.epochs": 46, "schedule.warmup_epochs": 2,
    },
    "own": CUHK03 | {
        "dataset": "own", "validation_fraction": 0.1, "evaluate_every": 5, "preprocessing.size": (224, 112),
        "schedule.epochs": 30,
    },
    "edge": PRETRAINED | IMAGENET | ADAMW | {
        "dataset": "own", "validation_fraction": 0.1, "evaluate_every": 5, "model.backbone": "vit_tiny_patch16_224",
        "augmentation.pad": 6, "optimizer.lr": 1e-3, "optimizer.head_lr_factor": 2, "schedule.epochs": 60,
        "schedule.warmup_epochs": 3,
    },
    "cuhk03": CUHK03,
    "cuhk03-jpm": CUHK03 | {"model.jpm": True, "model.sie": ("camera",)},
    "baseline-market": PRETRAINED,
    "resnet50-market": PRETRAINED | IMAGENET | {
        "preprocessing.test_interpolation": "bicubic", "model.backbone": "resnet50", "model.feature": "after",
        "optimizer.name": "adam", "optimizer.lr": 3.5e-4, "optimizer.weight_decay": 5e-4,
        "optimizer.bias_weight_decay": 5e-4, "optimizer.bias_lr_factor": 1, "schedule.name": "multistep",
        "schedule.warmup_epochs": 10,
    },
    "transreid-market": TRANSREID,
    "transreid-duke": TRANSREID | {"dataset": "dukemtmc"},
    "transreid-msmt17": TRANSREID | {"dataset": "msmt17"},
    "transreid-occluded-duke": TRANSREID | {"dataset": "occluded-duke", "model.stride": 11},
    "transreid-veri": VERI,
    "transreid-vehicleid": VEHICLEID,
    "transreid-trimodal": PRETRAINED | {
        "dataset": "rgbnt201", "preprocessing.size": (224, 224), "model.sie": ("modality",),
    },
    "trimodal-fusion": PRETRAINED | {
        "dataset": "rgbnt201", "preprocessing.size": (224, 224), "model.sie": ("modality",),
        "model.fusion": "attention", "augmentation.drop_modality": 0.3,
    },
    "deit-market": TRANSREID | DEIT,
    "deit-duke": TRANSREID | DEIT | {"dataset": "dukemtmc"},
    "deit-msmt17": TRANSREID | DEIT | {"dataset": "msmt17", "optimizer.lr": 0.005},
    "deit-occluded-duke": TRANSREID | DEIT | {"dataset": "occluded-duke", "model.stride": 11},
    "deit-veri": VERI | DEIT | IMAGENET,
    "deit-vehicleid": VEHICLEID | DEIT | IMAGENET | {"sampling.identities": 64, "optimizer.lr": 0.03},
    "vit-small-msmt17": SMALL | {"model.backbone": "legacy_vit_small"},
    "deit-small-msmt17": SMALL | PRETRAINED | {"model.backbone": "deit_small_patch16_224"},
}  # fmt: skip


def fields(run):
    """All values by name, such as `model.stride`."""
    values = {}
    for name, value in run.model_dump().items():
        values |= {f"{name}.{n}": v for n, v in value.items()} if isinstance(value, dict) else {name: value}
    return values


def test_the_recipes_are_listed_in_their_order():
    assert list(RECIPES) == list(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_values_of_a_recipe(name):
    default = fields(Run())
    changed = {field: value for field, value in fields(find(name)).items() if value != default[field]}
    assert changed == EXPECTED[name] | {"recipe": name}


def test_an_unknown_recipe_lists_the_known():
    with pytest.raises(ConfigError, match="there is no recipe named 'tinny'; known are: tiny, own, edge, "):
        find("tinny")


def test_a_variant_changes_only_what_it_names():
    run = vary(tiny(), seed=3, model={"stride": 4})
    before, after = fields(tiny()), fields(run)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"seed", "model.stride"}
    assert vary(tiny(), model=run.model).model == run.model
    with pytest.raises(ConfigError, match=r"^model\.strid: Extra inputs"):
        vary(tiny(), model={"strid": 4})
    with pytest.raises(ConfigError, match=r"^sed: Extra inputs"):
        vary(tiny(), sed=3)
