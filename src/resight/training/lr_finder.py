"""Which learning rate? Steps of a fresh model at ever higher rates, and the loss at each (Smith 2017, section 3.3)."""

from dataclasses import dataclass
from itertools import islice

import numpy as np

from resight.config.run import Run
from resight.data.loader import Loader
from resight.data.sampler import PKSampler
from resight.data.sightings import Split
from resight.data.vocabulary import Vocabulary
from resight.errors import ConfigError
from resight.progress import Progress
from resight.training.distributed import join
from resight.training.loop import describe, train_step
from resight.training.state import start

_SMOOTHING, _LOST = 0.9, 4.0  # of the loss; and over its least, where the search ends


@dataclass(frozen=True)
class Found:
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
    split: Split,
    low: float,
    high: float,
    steps: int,
    progress: Progress,
) -> Found:
    """Takes steps at base rates that grow evenly in their logarithm; stops where the loss is lost.

    Args:
        run: the whole configuration; its schedule is left out.
        split: the data set.
        low: the first rate.
        high: the last rate.
        steps: how many there are.
        screen: where progress is shown.

    Raises:
        ConfigError: the configuration does not fit the data, or the rates make no range.
    """
    if not 0 < low < high or steps < 3:
        raise ConfigError(
            f"rates from {low:g} to {high:g} in {steps} steps are no range; use --low < --high, 3 or more"
        )
    context = join(run.device)
    vocabulary = Vocabulary.of(split.train)
    loader = Loader(split.train, vocabulary, run.preprocessing.size, run.preprocessing.train_interpolation)
    sampler = PKSampler(loader.identity.tolist(), run.sampling.identities, run.sampling.instances, run.seed)
    state = start(run, vocabulary, context, progress)
    progress.log(describe(run, state.compute, split))
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
        loss = float(train_step(run, state, batch.to(context.device), whole, context)["loss"])
        mean = _SMOOTHING * mean + (1 - _SMOOTHING) * loss
        state.step += 1
        smoothed = mean / (1 - _SMOOTHING**state.step)
        if not np.isfinite(smoothed) or (losses and smoothed > _LOST * min(losses)):
            break
        losses.append(smoothed)
        progress.update(state.step, f"lr {rate:.1e}  loss {smoothed:.3f}")
    return Found(rates[: len(losses)], np.array(losses))
