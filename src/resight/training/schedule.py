"""The learning rate over the epochs."""

import math

from resight.config.optimization import Schedule


def learning_rate(settings: Schedule, epoch: float, lr: float, factor: float = 1.0) -> float:
    """Return the learning rate of a parameter group.

    Args:
        settings: the schedule.
        epoch: counted from 1; fractional if the rate is set at every step.
        lr: the base learning rate.
        factor: of the group's peak rate over the base rate (2 for biases in the reference). The rates at the start of
            the warm-up and at the end are the same for all groups.
    """
    peak = lr * factor
    start = lr * settings.warmup_start
    floor = lr * settings.floor
    if epoch < settings.warmup_epochs:
        return start + epoch / settings.warmup_epochs * (peak - start)
    if settings.name == "multistep":
        return peak * settings.gamma ** sum(epoch > milestone for milestone in settings.milestones)
    return floor + (peak - floor) * 0.5 * (1 + math.cos(math.pi * min(epoch / settings.epochs, 1)))
