"""Which learning rate? Steps of a fresh model at ever higher rates, and the loss at each (Smith 2017, section 3.3)."""

from dataclasses import dataclass
from itertools import islice

import numpy as np

from resight.config.run import Run
from resight.data.catalog import read_dataset
from resight.data.loader import Loader
from resight.data.sampler import PKSampler
from resight.data.sightings import Split
from resight.data.vocabulary import Vocabulary
from resight.errors import ConfigError
from resight.evaluation.checks import prepare
from resight.progress import Progress
from resight.training.context import TrainContext
from resight.training.distributed import initialize
from resight.training.resolve import resolve, root_of
from resight.training.state import start
from resight.training.step import train_step

_SMOOTHING, _LOST = 0.9, 4.0  # of the loss; and over its least, where the search ends


@dataclass(frozen=True)
class LearningRateCurve:
    """What a search saw."""

    rates: np.ndarray
    """float64 [S], base learning rates, ascending."""
    losses: np.ndarray
    """float64 [S], smoothed."""

    @property
    def steepest(self) -> float:
        """The rate at which the loss fell fastest, over the logarithm of the rate."""
        if len(self.rates) < 3:
            raise ConfigError("the loss was lost in the first steps; begin lower with --low")
        return float(self.rates[np.gradient(self.losses, np.log(self.rates)).argmin()])


def find_learning_rate(
    run: Run,
    split: Split | None = None,
    low: float = 1e-6,
    high: float = 1.0,
    steps: int = 100,
    progress: Progress | None = None,
) -> LearningRateCurve:
    """Takes steps at base rates that grow evenly in their logarithm; stops where the loss is lost.

    Args:
        run: the whole configuration; its schedule is left out.
        split: the data set, checked; None reads and checks the one that the run names.
        low: the first rate.
        high: the last rate.
        steps: how many there are.
        progress: where progress is shown; None shows nothing.

    Raises:
        ConfigError: the configuration does not fit the data, or the rates make no range.
    """
    if not 0 < low < high or steps < 3:
        raise ConfigError(
            f"rates from {low:g} to {high:g} in {steps} steps are no range; use --low < --high, 3 or more"
        )
    run = resolve(run)
    progress = progress or Progress(quiet=True)
    if split is None:
        split = prepare(run, read_dataset(run.dataset, root_of(run)), progress)
    distributed = initialize(run.device)
    context = TrainContext.create(run, Vocabulary.of(split.train), distributed, progress)
    size, interpolation = run.preprocessing.size, run.preprocessing.train_interpolation
    loader = Loader(split.train, context.card.vocabulary, size, interpolation)
    sampler = PKSampler(loader.identity.tolist(), run.sampling.identities, run.sampling.instances, run.seed)
    state = start(context)
    progress.log(context.description)
    state.model.train()
    state.epoch = run.optimizer.freeze_epochs + 1  # what is found is for the whole network
    rates, losses, mean = np.geomspace(low, high, steps), list[float](), 0.0
    endless = (rows for epoch in range(1, steps + 1) for rows in sampler.epoch(epoch))
    progress.start("learning rates", steps)
    for batch in loader.batches(islice(endless, steps)):
        rate = float(rates[state.step])
        for group in state.optimizer.param_groups:
            group["lr"] = rate * group["base"] / run.optimizer.lr * group["factor"]
        whole = (slice(0, len(batch.identity)), len(batch.identity))
        loss = float(train_step(context, state, batch.to(distributed.device), whole)["loss"])
        mean = _SMOOTHING * mean + (1 - _SMOOTHING) * loss
        state.step += 1
        smoothed = mean / (1 - _SMOOTHING**state.step)
        if not np.isfinite(smoothed) or (losses and smoothed > _LOST * min(losses)):
            break
        losses.append(smoothed)
        progress.update(state.step, f"lr {rate:.1e}  loss {smoothed:.3f}")
    return LearningRateCurve(rates[: len(losses)], np.array(losses))
