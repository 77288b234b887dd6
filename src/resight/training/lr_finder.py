"""The learning rate range test: train a new model at growing rates, and record the loss (Smith 2017, section 3.3)."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

from resight.config.run import Run
from resight.data.catalog import read_dataset
from resight.data.loader import Batch, Loader
from resight.data.sampler import PKSampler
from resight.data.sightings import Split
from resight.data.vocabulary import Vocabulary
from resight.errors import ConfigError
from resight.evaluation.checks import prepare
from resight.progress import Progress
from resight.training.context import TrainContext
from resight.training.distributed import initialize
from resight.training.resolve import resolve, root_of
from resight.training.state import State, start
from resight.training.step import train_step

_SMOOTHING = 0.9  # of the loss
_DIVERGED = 4.0  # times the lowest loss, at which the test ends


@dataclass(frozen=True)
class LearningRateCurve:
    """The learning rates of a range test, and the loss at each."""

    rates: np.ndarray
    """float64 [S], base learning rates, ascending."""
    losses: np.ndarray
    """float64 [S], smoothed."""

    @property
    def steepest(self) -> float:
        """The rate at which the loss fell fastest, as a function of the logarithm of the rate.

        Raises:
            ConfigError: there are fewer than three rates.
        """
        if len(self.rates) < 3:
            raise ConfigError("the loss diverged within the first steps; use a lower --low")
        return float(self.rates[np.gradient(self.losses, np.log(self.rates)).argmin()])


def find_learning_rate(
    run: Run,
    split: Split | None = None,
    low: float = 1e-6,
    high: float = 1.0,
    steps: int = 100,
    progress: Progress | None = None,
) -> LearningRateCurve:
    """Train one step at each of several learning rates, which grow geometrically; stop when the loss diverges.

    Args:
        run: the configuration; its schedule is ignored.
        split: the data set, checked; None reads and checks the data set of the run.
        low: the first base learning rate.
        high: the last base learning rate.
        steps: number of rates.
        progress: where progress is shown; None shows nothing.

    Raises:
        ConfigError: the configuration does not fit the data, or the rates are not a range.
    """
    if not 0 < low < high < np.inf or steps < 3:
        raise ConfigError(
            f"rates from {low:g} to {high:g} in {steps} steps are no range; use 0 < --low < --high and 3 steps or more"
        )
    run = resolve(run)
    progress = progress or Progress(quiet=True)
    if split is None:
        split = prepare(run, read_dataset(run.dataset, root_of(run), run.folder), progress)
    context = TrainContext.create(run, Vocabulary.of(split.train), initialize(run.device), progress)
    size, interpolation = run.preprocessing.size, run.preprocessing.train_interpolation
    loader = Loader(split.train, context.card.vocabulary, size, interpolation, run.preprocessing.scaling)
    sampler = PKSampler(loader.identity.tolist(), run.sampling.identities, run.sampling.instances, run.seed)
    state = start(context)
    progress.log(context.description)
    state.model.train()
    state.epoch = run.optimizer.freeze_epochs + 1  # train all layers
    batches = islice((rows for epoch in range(1, steps + 1) for rows in sampler.epoch(epoch)), steps)
    return _curve(context, state, loader.batches(batches), np.geomspace(low, high, steps))


def _curve(context: TrainContext, state: State, batches: Iterator[Batch], rates: np.ndarray) -> LearningRateCurve:
    """Train a step at each rate, until the loss diverges; its moving average is corrected for its start at 0."""
    losses = list[float]()
    mean = 0.0
    context.progress.start("learning rates", len(rates))
    for batch in batches:
        rate = float(rates[state.step])
        for group in state.optimizer.param_groups:
            group["lr"] = rate * group["base"] / context.run.optimizer.lr * group["factor"]
        all_rows = (slice(0, len(batch.identity)), len(batch.identity))
        loss = float(train_step(context, state, batch.to(context.distributed.device), all_rows)["loss"])
        mean = _SMOOTHING * mean + (1 - _SMOOTHING) * loss
        state.step += 1
        smoothed = mean / (1 - _SMOOTHING**state.step)
        if not np.isfinite(smoothed) or (losses and smoothed > _DIVERGED * min(losses)):
            break
        losses.append(smoothed)
        context.progress.update(state.step, f"lr {rate:.1e}  loss {smoothed:.3f}")
    return LearningRateCurve(rates[: len(losses)], np.array(losses))
