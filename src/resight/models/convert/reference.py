"""Convert checkpoints of the reference implementation of TransReID."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from torch import Tensor

from resight.config.sections import Model, Preprocessing, SideLabel
from resight.config.yaml_text import parse_yaml
from resight.data.catalog import camera_owner
from resight.data.sightings import MODALITIES
from resight.data.vocabulary import Vocabulary
from resight.errors import CheckpointError, ConfigError
from resight.files import write_folder
from resight.models.backbones.resnet import RESNET
from resight.models.backbones.vit import LEGACY_SMALL, ViT
from resight.models.checkpoint import ModelCard, fill_model_folder
from resight.models.transreid import TransReID
from resight.models.weights import fit, read_tensors, resize_positions

BACKBONES: Final = {
    "vit_base_patch16_224_TransReID": "vit_base_patch16_224",
    "deit_base_patch16_224_TransReID": "deit_base_patch16_224",
    "vit_small_patch16_224_TransReID": LEGACY_SMALL,
    "deit_small_patch16_224_TransReID": "deit_small_patch16_224",
}
_HEADS: Final = {
    "softmax": "softmax",
    "arcface": "arcface",
    "cosface": "cosface",
    "amsoftmax": "am-softmax",
    "circle": "circle",
}
_DATASETS: Final = {
    "market1501": "market1501",
    "dukemtmc": "dukemtmc",
    "occ_duke": "dukemtmc",
    "msmt17": "msmt17",
    "veri": "veri776",
}
_UNUSED_WITH_JPM: Final = "the reference trains copies of it in b1 and b2 and leaves this one unused"


@dataclass(frozen=True)
class Conversion:
    """A converted model, and a report of the conversion."""

    model: TransReID
    card: ModelCard
    left_out: dict[str, str]
    """Names of unused tensors in the checkpoint, and the reasons."""
    notes: tuple[str, ...]
    """Changes to the weights."""

    def write(self, folder: Path) -> None:
        """Write a model folder.

        Raises:
            ConfigError: the folder exists.
            StorageError: the folder cannot be written.
        """
        if folder.exists():
            raise ConfigError(f"{folder} exists already and is not written over; use another --out")
        write_folder(folder, lambda partial: fill_model_folder(partial, self.model.state_dict(), self.card))


def read_options(path: Path) -> dict[str, Any]:
    """Read a YAML configuration of the reference, flattened to names such as `MODEL.JPM`.

    Raises:
        ConfigError: the file does not exist, or is no such configuration.
    """
    try:
        text = path.read_text()
    except (OSError, ValueError) as error:  # ValueError: no UTF-8, or a NUL in the path
        raise ConfigError(f"{path} cannot be read as the reference's YAML: {str(error).splitlines()[0]}") from error
    tree = parse_yaml(text, str(path))
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} is not the reference's YAML: it has no sections such as MODEL and INPUT")
    sections = cast("dict[str, Any]", tree)
    return {
        f"{section}.{name}": parse_yaml(value, f"{section}.{name} in {path}")
        if isinstance(value, str) and value[:1] in "(["
        else value
        for section, values in sections.items()
        if isinstance(values, dict)
        for name, value in cast("dict[str, Any]", values).items()
    }


def convert_checkpoint(
    checkpoint: Path,
    options: Mapping[str, Any],
    cameras: int | None = None,
    views: int | None = None,
    view_is_modality: bool = False,
    dataset: str | None = None,
) -> Conversion:
    """Convert a checkpoint of the reference to a model.

    Args:
        checkpoint: a state dict saved with `torch.save`, with or without the prefix `module.`.
        options: the reference's options by name (`MODEL.JPM`, `INPUT.SIZE_TRAIN`); missing ones have the values of the
            reference's transformer recipes.
        cameras: number of cameras, if SIE encodes camera and view.
        views: number of views, if SIE encodes camera and view.
        view_is_modality: the views of SIE are modalities, in the order rgb, nir, tir.
        dataset: the data set of the catalog that the cameras and views belong to; None takes it from DATASETS.NAMES.

    Raises:
        CheckpointError: the file is corrupt or unsafe, or does not fit the options.
        ConfigError: an option has an unknown value.
    """
    owner = _dataset(options) if dataset is None else camera_owner(dataset)
    tensors = read_tensors(checkpoint)
    settings, preprocessing = _settings(options, view_is_modality)
    vocabulary, settings = _vocabulary(tensors, settings, cameras, views, owner)
    card = ModelCard(model=settings, preprocessing=preprocessing, vocabulary=vocabulary)
    model = card.build()
    renamed, left_out = _rename(tensors, settings, model)
    notes: list[str] = []
    positions = renamed.get("backbone.pos_embed")
    if positions is not None and isinstance(model.backbone, ViT):
        renamed["backbone.pos_embed"] = resize_positions(positions, model.backbone)
        if renamed["backbone.pos_embed"].shape != positions.shape:
            before = positions.shape[1] - 1
            after = model.backbone.pos_embed.shape[1] - 1
            notes.append(f"position embedding resized from {before} patches to {after}")
    fit(model, renamed, checkpoint)
    return Conversion(model.eval(), card, left_out, tuple(notes))


def _settings(options: Mapping[str, Any], view_is_modality: bool) -> tuple[Model, Preprocessing]:
    kind = str(options.get("MODEL.TRANSFORMER_TYPE", "vit_base_patch16_224_TransReID"))
    resnet = options.get("MODEL.NAME") == RESNET
    if not resnet and kind not in BACKBONES:
        raise ConfigError(f"MODEL.TRANSFORMER_TYPE {kind!r} is not one of {', '.join(BACKBONES)}")
    head = str(options.get("MODEL.ID_LOSS_TYPE", "softmax"))
    if head not in _HEADS:
        raise ConfigError(f"MODEL.ID_LOSS_TYPE {head!r} is not one of {', '.join(_HEADS)}")
    stride = tuple(options.get("MODEL.STRIDE_SIZE", (16, 16)))
    if stride[0] != stride[1]:
        raise ConfigError(
            f"MODEL.STRIDE_SIZE {stride} is not supported: the stride must be the same in both directions"
        )
    side_info: list[SideLabel] = ["camera"] if options.get("MODEL.SIE_CAMERA") else []
    if options.get("MODEL.SIE_VIEW"):
        side_info.append("modality" if view_is_modality else "view")
    model = Model(
        backbone=RESNET if resnet else BACKBONES[kind],
        stride=None if resnet or stride[0] == 16 else int(stride[0]),
        sie=tuple(side_info),
        sie_weight=options.get("MODEL.SIE_COE", 3.0),
        jpm=bool(options.get("MODEL.JPM", False)),
        jpm_shift=options.get("MODEL.SHIFT_NUM", 5),
        jpm_groups=options.get("MODEL.SHUFFLE_GROUP", 2),
        jpm_parts=options.get("MODEL.DEVIDE_LENGTH", 4),
        jpm_rearrange=bool(options.get("MODEL.RE_ARRANGE", True)),
        head=_HEADS[head],  # pyright: ignore[reportArgumentType]
        head_scale=options.get("SOLVER.COSINE_SCALE", 30.0),
        head_margin=options.get("SOLVER.COSINE_MARGIN", 0.5),
        feature=options.get("TEST.NECK_FEAT", "before"),
        drop_path=options.get("MODEL.DROP_PATH", 0.1),
        dropout=options.get("MODEL.DROP_OUT", 0.0),
        attention_dropout=options.get("MODEL.ATT_DROP_RATE", 0.0),
    )
    preprocessing = Preprocessing(
        size=tuple(options.get("INPUT.SIZE_TRAIN", (256, 128))),
        mean=tuple(options.get("INPUT.PIXEL_MEAN", (0.5,) * 3)),
        std=tuple(options.get("INPUT.PIXEL_STD", (0.5,) * 3)),
    )
    return model, preprocessing


def _vocabulary(
    tensors: Mapping[str, Tensor], settings: Model, cameras: int | None, views: int | None, owner: str | None
) -> tuple[Vocabulary, Model]:
    """Label names in the reference's order: it numbers cameras from 1, and does not store the names of identities."""
    classes = tensors["classifier.weight"].shape[0] if "classifier.weight" in tensors else 0
    if classes == 0:
        raise CheckpointError("the checkpoint has no classifier.weight: it is no TransReID checkpoint")
    identities = tuple(f"{i:0{len(str(classes - 1))}d}" for i in range(classes))
    if "base.sie_embed" not in tensors:  # with one camera or view the reference has no SIE
        return Vocabulary(identities), settings.model_copy(update={"sie": ()})
    rows = tensors["base.sie_embed"].shape[0]
    counts: dict[str, int] = dict.fromkeys(settings.sie, rows)
    if len(settings.sie) == 2:
        cameras = cameras or rows // (views or rows)
        counts = {settings.sie[0]: cameras, settings.sie[1]: rows // cameras}
        if cameras * (rows // cameras) != rows or 1 in counts.values():
            raise ConfigError(f"SIE has {rows} rows of camera x view; give the number of cameras with --cameras")
    if not counts:
        raise CheckpointError(
            "the checkpoint has SIE and the options have none; set MODEL.SIE_CAMERA or MODEL.SIE_VIEW"
        )
    if counts.get("modality", 1) > len(MODALITIES):
        raise ConfigError(f"SIE has {rows} rows, more than the modalities {', '.join(MODALITIES)}")
    prefix = f"{owner}:" if owner else ""  # as `read_dataset` names cameras and views
    digits, first_view = (3, 0) if owner == "veri776" else (1, 1)  # VeRi-776 has cameras 001 to 020 and views 0 to 7
    camera_names = tuple(f"{prefix}{i + 1:0{digits}d}" for i in range(counts.get("camera", 0)))
    view_names = tuple(f"{prefix}{i + first_view}" for i in range(counts.get("view", 0)))
    modalities = MODALITIES[: counts.get("modality", 1)]
    return Vocabulary(identities, camera_names, view_names, modalities), settings


def _dataset(options: Mapping[str, Any]) -> str | None:
    """The catalog's name of the reference's data set; None if the options name no data set with cameras."""
    name = str(options.get("DATASETS.NAMES", "")).strip("()'\" ,")
    return _DATASETS.get(name)


def _rename(
    tensors: Mapping[str, Tensor], settings: Model, model: TransReID
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Rename the reference's tensors; also return the names that are left out, and why."""
    exact: dict[str, str] = {"base.sie_embed": "backbone.sie.table"}
    left_out = {name: "ImageNet's classifier" for name in tensors if name.startswith(("base.fc.", "base.head."))}
    if isinstance(model.backbone, ViT) and settings.jpm:
        last = f"base.blocks.{len(model.backbone.blocks) - 1}."
        left_out |= {name: _UNUSED_WITH_JPM for name in tensors if name.startswith((last, "base.norm."))}
        prefixes = {"b1.0.": last.replace("base", "backbone"), "b1.1.": "backbone.norm."}
        prefixes |= {"b2.0.": "backbone.jpm.block.", "b2.1.": "backbone.jpm.norm."}
    else:
        prefixes = {}
    for branch in range(model.backbone.features):
        ending = f"_{branch}" if branch else ""
        prefixes |= {f"classifier{ending}.": f"heads.{branch}.", f"bottleneck{ending}.": f"necks.{branch}."}
    prefixes["base."] = "backbone." if isinstance(model.backbone, ViT) else "backbone.net."
    renamed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name in left_out:
            continue
        prefix = next((p for p in prefixes if name.startswith(p)), "")
        new_name = exact.get(name) or prefixes.get(prefix, "") + name.removeprefix(prefix)
        renamed[new_name] = tensor.squeeze(1) if name == "base.sie_embed" else tensor
    if settings.head != "softmax":
        left_out |= {
            n: "a margin head has no bias" for n in list(renamed) if n.startswith("heads.") and n.endswith("bias")
        }
        renamed = {n: t for n, t in renamed.items() if n not in left_out}
    return renamed, left_out
