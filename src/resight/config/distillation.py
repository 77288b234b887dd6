"""The section of distillation. Imports no torch."""

from pydantic import Field

from resight.config.section import Section


class Distillation(Section):
    """What a student learns from its teacher (`teacher`), in addition to the labels."""

    embedding_weight: float = Field(default=10.0, ge=0)
    """Weight of the embedding loss: 1 minus the cosine between the student's embedding and the teacher's, each less the
    batch's mean. Where their lengths differ, the student's goes through a learned linear projection, which is not part
    of the trained model."""
    distance_weight: float = Field(default=10.0, ge=0)
    """Weight of the relation loss on the distances between the images of a batch (RKD, Park et al. 2019): each distance
    is divided by the batch's mean, and compared with the teacher's by the Huber loss."""
    similarity_weight: float = Field(default=0.0, ge=0)
    """Weight of the relation loss on the similarities: the mean squared difference of the cosines of all pairs of a
    batch, also less the batch's mean."""
