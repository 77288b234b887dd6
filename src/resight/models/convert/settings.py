"""The sections of our configuration that the reference's options stand for."""

from collections.abc import Mapping
from typing import Any, Final

from resight.config.sections import Model, Preprocessing, SideLabel
from resight.errors import ConfigError
from resight.models.backbones.resnet import RESNET
from resight.models.convert.options import BACKBONES, HEADS

_DATASETS: Final = {
    "market1501": "market1501",
    "dukemtmc": "dukemtmc",
    "occ_duke": "dukemtmc",
    "msmt17": "msmt17",
    "veri": "veri776",
}
_FIELDS: Final = {  # of the section Model
    "MODEL.SIE_COE": "sie_weight",
    "MODEL.JPM": "jpm",
    "MODEL.SHIFT_NUM": "jpm_shift",
    "MODEL.SHUFFLE_GROUP": "jpm_groups",
    "MODEL.DEVIDE_LENGTH": "jpm_parts",
    "MODEL.RE_ARRANGE": "jpm_rearrange",
    "MODEL.DROP_PATH": "drop_path",
    "MODEL.DROP_OUT": "dropout",
    "MODEL.ATT_DROP_RATE": "attention_dropout",
    "SOLVER.COSINE_SCALE": "head_scale",
    "SOLVER.COSINE_MARGIN": "head_margin",
    "TEST.NECK_FEAT": "feature",
}
PATCH: Final = 16  # pixels, of every transformer of the reference


def sections_of(options: Mapping[str, Any], view_is_modality: bool) -> tuple[Model, Preprocessing]:
    """Translate checked options into our sections; missing ones have the values of the reference's recipes.

    Raises:
        ConfigError: options exclude each other.
    """
    resnet = options.get("MODEL.NAME") == RESNET
    kind = options.get("MODEL.TRANSFORMER_TYPE", "vit_base_patch16_224_TransReID")
    if not resnet and kind is None:
        raise ConfigError("MODEL.TRANSFORMER_TYPE is None, which only MODEL.NAME=resnet50 allows")
    stride = options.get("MODEL.STRIDE_SIZE", (PATCH, PATCH))
    if stride[0] != stride[1]:
        raise ConfigError(
            f"MODEL.STRIDE_SIZE {stride} is not supported: the stride must be the same in both directions"
        )
    size = options.get("INPUT.SIZE_TRAIN", (256, 128))
    if options.get("INPUT.SIZE_TEST", size) != size:
        raise ConfigError(
            f"INPUT.SIZE_TEST {options['INPUT.SIZE_TEST']} is not INPUT.SIZE_TRAIN {size}; a model has one size"
        )
    if view_is_modality and not options.get("MODEL.SIE_VIEW"):
        raise ConfigError("--view-is-modality needs MODEL.SIE_VIEW=True")
    side_info: list[SideLabel] = ["camera"] if options.get("MODEL.SIE_CAMERA") else []
    if options.get("MODEL.SIE_VIEW"):
        side_info.append("modality" if view_is_modality else "view")
    model = Model().changed(
        backbone=RESNET if resnet else BACKBONES[kind],
        stride=None if resnet or stride[0] == PATCH else stride[0],
        sie=tuple(side_info),
        head=HEADS[options.get("MODEL.ID_LOSS_TYPE", "softmax")],
        **{field: options[name] for name, field in _FIELDS.items() if name in options},
    )
    preprocessing = Preprocessing().changed(
        size=size, mean=options.get("INPUT.PIXEL_MEAN", (0.5,) * 3), std=options.get("INPUT.PIXEL_STD", (0.5,) * 3)
    )
    return model, preprocessing


def dataset_of(options: Mapping[str, Any]) -> str | None:
    """Return the catalog's name of the reference's data set; None if the options name no data set with cameras."""
    name = str(options.get("DATASETS.NAMES", "")).strip("()'\" ,")
    return _DATASETS.get(name)
