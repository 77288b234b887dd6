"""What every part of a training needs: the configuration, the model card, the processes, and where output goes."""

from dataclasses import dataclass

import torch

from resight.config.run import Run
from resight.data.vocabulary import Vocabulary
from resight.device import Compute, processor_kind, resolve_compute
from resight.errors import ConfigError
from resight.models.checkpoint import ModelCard
from resight.progress import Progress
from resight.training.distributed import DistributedContext
from resight.training.run_folder import RunFolder


@dataclass(frozen=True)
class TrainContext:
    """What every part of a training needs, made once at its start."""

    run: Run
    card: ModelCard
    distributed: DistributedContext
    compute: Compute
    progress: Progress
    folder: RunFolder | None = None
    """None where nothing is stored, such as in a search for a learning rate."""

    @classmethod
    def create(
        cls,
        run: Run,
        vocabulary: Vocabulary,
        distributed: DistributedContext,
        progress: Progress,
        folder: RunFolder | None = None,
    ) -> "TrainContext":
        """Resolve what a run computes with: as before for a run that is resumed, else as is best on this machine.

        Raises:
            ConfigError: the cross-modal loss has a weight, and all images are of one modality; or a modality is to be
                dropped that the training set does not have.
        """
        unknown = sorted(set(run.augmentation.drop_by_modality) - set(vocabulary.modalities))
        if unknown:
            raise ConfigError(
                f"augmentation.drop_by_modality has {unknown[0]!r}, and the training set's modalities are "
                f"{', '.join(vocabulary.modalities)}"
            )
        if run.loss.cross_modal_weight and len(vocabulary.modalities) == 1:
            raise ConfigError(
                "loss.cross_modal_weight compares images of different modalities, and the training set has only "
                f"{vocabulary.modalities[0]}: set it to 0"
            )
        compute = None if folder is None else compute_of_resumed(folder, distributed, progress)
        if compute is None:
            batch_size = run.embedding.batch_size
            compute = distributed.of_main(resolve_compute(distributed.device, run.precision, batch_size, training=True))
        card = ModelCard(
            model=run.model, preprocessing=run.preprocessing, vocabulary=vocabulary, embedding=run.embedding
        )
        return cls(run, card, distributed, compute, progress, folder)

    @property
    def description(self) -> str:
        """Device, kind of processor, precision, image size and images of a batch, in one line."""
        sampling = self.run.sampling
        batch_size = sampling.identities * sampling.instances * len(self.card.vocabulary.modalities)
        return self.compute.describe(self.run.preprocessing.size, batch_size)


def compute_of_resumed(folder: RunFolder, distributed: DistributedContext, progress: Progress) -> Compute | None:
    """What a run was computed with so far; None for a new run, and for one that another kind of device resumes."""
    before = distributed.of_main(folder.read_compute())
    if before is None:
        return None
    if torch.device(before.device).type != distributed.device.type:
        progress.log(f"the run was computed on {before.device} so far and is resumed on {distributed.device.type}")
        return None
    if before.processor != processor_kind():
        progress.log(
            f"the run was computed on a processor with {before.processor} so far; on this one ({processor_kind()}) its "
            "weights can differ in the last digits"
        )
    return before
