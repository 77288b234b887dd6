"""The families of foreign checkpoints that can be read, and the one that a file is of."""

from collections.abc import Mapping
from typing import Final

from torch import Tensor

from resight.errors import CheckpointError
from resight.models.convert.clip_resnet import CLIP_RESNET
from resight.models.convert.clip_vit import CLIP_VIT
from resight.models.convert.family import Family
from resight.models.convert.fastreid import FASTREID
from resight.models.convert.megadescriptor import MEGADESCRIPTOR
from resight.models.convert.miewid import MIEWID
from resight.models.convert.pass_reid import PASS
from resight.models.convert.solider import SOLIDER
from resight.models.convert.torchreid import OSNET, RESNET
from resight.models.convert.transreid_ssl import PLAIN_VIT

FAMILIES: Final[tuple[Family, ...]] = (
    PLAIN_VIT,
    PASS,
    CLIP_VIT,
    CLIP_RESNET,
    SOLIDER,
    OSNET,
    RESNET,
    FASTREID,
    MEGADESCRIPTOR,
    MIEWID,
)


def find_family(tensors: Mapping[str, Tensor], source: object) -> Family | None:
    """Return the family that the names of tensors are of; None where none fits.

    Args:
        tensors: by name.
        source: where they come from, for error messages.

    Raises:
        CheckpointError: the names are of two families.
    """
    matches = [family for family in FAMILIES if family.matches(tensors)]
    if len(matches) > 1:
        raise CheckpointError(
            f"{source} has tensors of {matches[0].name} and of {matches[1].name}: a checkpoint is of one family"
        )
    return matches[0] if matches else None
