"""The first check of a run, before a picture is read: names, and what depends on the data set."""

from pathlib import Path

from resight.config.run import Run
from resight.data.catalog import protocol_of, require_known
from resight.errors import ConfigError
from resight.models.backbones.build import require_backbone
from resight.models.checkpoint import effective_fusion
from resight.models.convert.hub_timm import resolve_backbone
from resight.models.pretrained import TIMM
from resight.retrieval.protocols import find
from resight.training.distillation import require_teacher


def resolve(run: Run) -> Run:
    """Check the names of data sets, protocol and backbone and the teacher, and resolve the fusion of modalities.

    A backbone `hf-hub:ORG/NAME` becomes timm's name of that network, and the weights `timm` those of the repository.

    Raises:
        CheckpointError: the Hub cannot be reached for such a backbone, or has no network of timm there.
        ConfigError: a name is not known, or embeddings would be concatenated although the protocol searches one
            modality with another: such embeddings have nothing in common.
    """
    names = require_known(run.dataset)
    protocol = find(run.evaluation.protocol or protocol_of(names[0]))
    crosses = protocol.crosses_modalities or find(protocol_of(names[0])).crosses_modalities
    model = resolve_backbone(run.model)
    require_backbone(model.backbone)
    weights = run.model.backbone if model != run.model and run.weights == TIMM else run.weights
    fusion = run.embedding.fusion
    if protocol.crosses_modalities and fusion == "concat":
        raise ConfigError(
            f"protocol {protocol.name} searches one modality with another, and concatenated embeddings of two "
            "modalities have nothing in common: use --embedding.fusion mean"
        )
    if fusion == "auto" and run.model.fusion is None:
        fusion = "mean" if crosses else "concat"
    fusion = effective_fusion(fusion, run.model)
    if protocol.crosses_modalities and run.model.fusion == "concat":
        raise ConfigError(
            f"protocol {protocol.name} searches one modality with another, and model.fusion concat gives embeddings of "
            "two modalities nothing in common: use mean, gate or attention"
        )
    require_teacher(run)
    embedding = run.embedding.model_copy(update={"fusion": fusion})
    return run.model_copy(update={"model": model, "weights": weights, "embedding": embedding})


def root_of(run: Run) -> Path:
    """Where a run's data set is.

    Raises:
        ConfigError: the data set is not known, or the run does not say where it is.
    """
    require_known(run.dataset)
    if run.root is not None:
        return run.root
    if run.dataset in ("synthetic", "synthetic-hard"):
        return Path("data") / run.dataset
    raise ConfigError(f"give the images of {run.dataset} with --root FOLDER_OR_TABLE")
