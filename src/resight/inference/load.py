"""Load a model folder for embedding."""

from pathlib import Path

from resight.config.scaling import Scaling, require_modalities
from resight.config.sections import Fusion, Precision, UnknownSideInfo
from resight.device import DTYPES, pick_device, resolve_compute
from resight.inference.embedder import Embedder
from resight.inference.exported import is_exported, load_exported
from resight.models.blocks import fold_and_cast_weights
from resight.models.calibration import read_calibration
from resight.models.hub.download import local_folder
from resight.models.open_model import open_model
from resight.models.sie import SIE


def load(
    folder: str | Path,
    device: str = "auto",
    precision: Precision | None = None,
    flip: bool | None = None,
    fusion: Fusion | None = None,
    unknown: UnknownSideInfo | None = None,
    batch_size: int | None = None,
    compile: bool = False,
    scaling: Scaling | None = None,
) -> Embedder:
    """Load a model folder for embedding, or the folder of an export or of an imported ONNX file.

    What is None is as the model's card says; see `resight.config.sections.Embedding` for the meaning of each.

    Args:
        folder: a model folder, or one of roboflow's `reid`; or its address on the Hugging Face Hub, `hf://ORG/NAME` or
            `hf://ORG/NAME@REVISION`, for which it is downloaded once. Without such an address nothing is downloaded.
        device: `cpu`, `cuda`, `cuda:1`, `mps`, or `auto`.
        precision: arithmetic of the matrix products.
        flip: whether an embedding is the mean over the image and its mirror image.
        fusion: how the embeddings of a sighting's modalities become one.
        unknown: the side information of unknown cameras and views.
        batch_size: images at once.
        compile: whether torch.compile makes the network faster.
        scaling: how images of more than 8 bits become 8 bits.

    Raises:
        CheckpointError: the folder is no model folder, or its files do not belong together; or the Hub cannot be
            reached, or has no such model.
        ConfigError: an option is invalid, or this machine has no such device.
    """
    path = local_folder(folder)
    if is_exported(path):
        return load_exported(
            path, device, batch_size, precision=precision, flip=flip, fusion=fusion, unknown=unknown,
            compile=compile, scaling=scaling,
        )  # fmt: skip
    model, card = open_model(path)
    options = {"precision": precision, "flip": flip, "fusion": fusion, "unknown": unknown, "batch_size": batch_size}
    overrides = {name: value for name, value in options.items() if value is not None}
    settings = card.embedding.changed(**overrides, scaling=card.embedding.scaling if scaling is None else scaling)
    require_modalities(settings.scaling, card.vocabulary.modalities)
    model.to(pick_device(device))
    for table in (module for module in model.modules() if isinstance(module, SIE)):
        table.unknown = settings.unknown  # for good, so that threads that embed at the same time change nothing
    compute = resolve_compute(next(model.parameters()).device, settings.precision, settings.batch_size)
    if compute.precision != "fp32":
        fold_and_cast_weights(model.backbone, DTYPES[compute.precision])
    return Embedder(model, card, settings, compute, read_calibration(path), card.weights_sha256, path, compile)
