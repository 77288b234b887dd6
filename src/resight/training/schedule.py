"""The learning rate over the epochs."""

import math

from resight.config.sections import Schedule


def learning_rate(settings: Schedule, epoch: float, lr: float, factor: float = 1.0) -> float:
    """The learning rate of a parameter group.

    Args:
        settings: the schedule.
        epoch: counted from 1; between whole numbers where the rate is set at every step.
        lr: the base learning rate.
        factor: what the group's peak is over the base (2 for biases in the reference). Start and floor are the base's
            own, so that all groups share them.
    """
    peak, start, floor = lr * factor, lr * settings.warmup_start, lr * settings.floor
    if epoch < settings.warmup_epochs:
        return start + epoch / settings.warmup_epochs * (peak - start)
    if settings.name == "multistep":
        return peak * settings.gamma ** sum(epoch > milestone for milestone in settings.milestones)
    return floor + (peak - floor) * 0.5 * (1 + math.cos(math.pi * min(epoch / settings.epochs, 1)))
