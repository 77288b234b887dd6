"""Convert a checkpoint of another implementation to a model: of the reference, or of a family that its names tell."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Unpack

from torch import Tensor

from resight.errors import CheckpointError, ConfigError
from resight.models.backbones.build import backbone_class
from resight.models.backbones.eva import Eva
from resight.models.backbones.timm_net import TimmNet
from resight.models.convert.conversion import Conversion
from resight.models.convert.families import family_of
from resight.models.convert.family import Family, FamilyOptions
from resight.models.convert.hub_timm import is_timm_address, read_hub_timm
from resight.models.convert.recognition import find_family
from resight.models.convert.reference import convert_reference
from resight.models.convert.reid_folder import convert_reid_folder, is_reid_folder
from resight.models.convert.tensors import convert_tensors
from resight.models.convert.timm_files import TIMM, timm_family
from resight.models.convert.transreid_ssl import PLAIN_VIT
from resight.models.hub.address import is_hub_address
from resight.models.hub.download import local_folder
from resight.models.pretrained import download
from resight.models.tensor_file import read_tensors

_REFERENCE_ONLY: Final = ("cameras", "views", "view_is_modality", "dataset")


def convert_checkpoint(
    checkpoint: str | Path, options: Mapping[str, Any] | None = None, **family_options: Unpack[FamilyOptions]
) -> Conversion:
    """Convert a checkpoint of another implementation to a model.

    The family is recognised by the names of the tensors (docs/backbones.md lists the families). What no tensor tells is
    stated as an option or assumed; the result's `notes` say what was assumed.

    Args:
        checkpoint: a file of `torch.save` or a `.safetensors` file, which is read without running code in it; a folder
            of roboflow's `reid`, or the address `hf://ORG/NAME` of one; or `timm:NAME` or `hf-hub:ORG/NAME` to download
            weights of timm.
        options: the reference's options by name (`MODEL.JPM`, `INPUT.SIZE_TRAIN`), for checkpoints of the reference;
            missing ones have the values of the reference's transformer recipes. None: the family tells.
        family_options: of the family, see `FamilyOptions`. With `options` only `cameras`, `views`, `view_is_modality`
            and `dataset` are used.

    Raises:
        CheckpointError: the file is corrupt or unsafe, of no known family, or does not fit the options.
        ConfigError: an option is unknown, or has an invalid value.

    Example:
        `resight.convert_checkpoint("personvit.pth", pooling="token").write("models/personvit")`
    """
    stated: dict[str, Any] = {name: value for name, value in family_options.items() if value is not None}
    if options is not None:
        others = [name for name in stated if name not in _REFERENCE_ONLY]
        if others:
            raise ConfigError(f"--{others[0].replace('_', '-')} is not used with the reference's options: remove it")
        return convert_reference(checkpoint, options, **stated)
    return _convert_family(checkpoint, stated)


def _convert_family(checkpoint: str | Path, stated: Mapping[str, Any]) -> Conversion:
    """Convert a checkpoint of the family that its names tell, or weights of timm."""
    source = str(checkpoint)
    if is_timm_address(source):
        repository = read_hub_timm(source)
        family = timm_family(repository.settings)
        return convert_tensors(repository.tensors(), source, family, {"backbone": repository.architecture, **stated})
    folder = local_folder(checkpoint)
    if is_hub_address(checkpoint) and not is_reid_folder(folder):
        raise CheckpointError(f"{source} is a model of resight already: load it, nothing has to be converted")
    if is_reid_folder(folder):
        if stated:
            raise ConfigError(
                f"--{next(iter(stated)).replace('_', '-')} is not used: reid_config.json has all settings"
            )
        return convert_reid_folder(folder)
    if source.startswith("timm:"):
        name = source.removeprefix("timm:")
        return convert_tensors(download(name), source, TIMM, {"backbone": name, **stated})
    tensors = read_tensors(Path(checkpoint))
    return convert_tensors(tensors, source, _family_of_file(tensors, source, stated.get("backbone")), stated)


def _family_of_file(tensors: Mapping[str, Tensor], source: str, backbone: str | None) -> Family:
    """The family that the names tell; or timm, where the stated backbone is no plain vision transformer."""
    family = find_family(tensors, source)
    if family in (None, PLAIN_VIT) and backbone is not None and backbone_class(backbone) in (Eva, TimmNet):
        return TIMM
    if family is not None:
        return family
    looks_like = family_of(tensors)
    hint = f"; the file looks like {looks_like}" if looks_like else ""
    raise CheckpointError(
        f"{source} is of no family of checkpoints that can be converted{hint}; for a network of timm, "
        "give --backbone NAME"
    )
