"""Training, read from top to bottom.

Every random draw follows from (seed, epoch, step) alone, so a run that is resumed ends with the weights, to the bit on
a CPU, that it would have had without the interruption.
"""

from collections.abc import Sequence
from time import perf_counter

import numpy as np
import torch

from resight.config.run import Run
from resight.data.catalog import read_dataset
from resight.data.loader import Loader
from resight.data.sampler import PKSampler
from resight.data.sightings import Split, hold_out
from resight.data.vocabulary import Vocabulary
from resight.errors import TrainingError
from resight.evaluation.checks import prepare
from resight.evaluation.evaluate import evaluate
from resight.evaluation.result import Result, figures
from resight.inference.embedder import Embedder
from resight.models.checkpoint import load_model
from resight.models.transreid import TransReID
from resight.progress import Progress, counted, duration, percent
from resight.training.context import TrainContext
from resight.training.distributed import DistributedContext, embed_distributed, initialize
from resight.training.fsdp import whole_weights, write_shards
from resight.training.lines import epoch_line, score_line, size_line
from resight.training.optimizer import set_learning_rate
from resight.training.resolve import resolve, root_of
from resight.training.run_folder import RunFolder, default_folder
from resight.training.state import State, resume, start
from resight.training.step import train_step
from resight.training.tensorboard import TensorBoardLog

_TIMED_STEPS = 12  # before the whole time is estimated; the first is not counted
_TIMED_SECONDS = 30.0  # after which fewer steps are enough, where each takes long


def train(
    run: Run,
    split: Split | None = None,
    folder: RunFolder | None = None,
    progress: Progress | None = None,
    distributed: DistributedContext | None = None,
) -> Result:
    """Train as `run` says, or resume what `folder` holds, and measure the best checkpoint on the test set.

    Args:
        run: the whole configuration.
        split: the data set, checked by `prepare`; None reads and checks the one that the run names.
        folder: the run's folder, new or opened again; None makes the one that the run names.
        progress: where progress is shown; None shows nothing.
        distributed: the processes that train together; None for those that torchrun started, or this one alone.

    Raises:
        ConfigError: the configuration does not fit the data or the machine.
        PictureError: a picture cannot be decoded.
        TrainingError: the loss is not finite.
        StorageError: a checkpoint cannot be written; the one before it is complete.
    """
    run = resolve(run)
    progress = progress or Progress(quiet=True)
    distributed = distributed or initialize(run.device)
    folder = folder or RunFolder.new(default_folder(run))
    if split is None:
        progress.start(f"reading {run.dataset}", None)
        split = prepare(run, read_dataset(run.dataset, root_of(run), run.folder), progress)
    learned, validation = hold_out(split, run.validation_fraction, run.seed)
    context = TrainContext.create(run, Vocabulary.of(learned.train), distributed, progress, folder)
    torch.set_num_threads(context.compute.threads)
    loader, sampler = _data(context, learned)
    state = _started(context, folder, loader)
    first = state.epoch
    while state.epoch <= run.schedule.epochs:
        train_epoch(context, state, loader, sampler.epoch(state.epoch), estimate=state.epoch == first)
        better = _evaluate_epoch(context, state, split, validation)
        epoch = state.epoch
        state.epoch = epoch + 1
        state.step = 0
        state.sums = {}
        save_checkpoint(context, state, f"epoch-{epoch:04d}", best=better)
    best = load_model(folder.best)[0].to(distributed.device)
    result = score(context, best, split)
    if distributed.is_main:
        folder.write_result({"checkpoint": folder.best.resolve().name, **figures(result, split.name)})
    return result


def _started(context: TrainContext, folder: RunFolder, loader: Loader) -> State:
    """The state of a new run, or that of the last checkpoint, once everything is known to fit."""
    run, progress, distributed = context.run, context.progress, context.distributed
    state = start(context)
    if run.cache:
        progress.start("packing pictures", len(loader.files))
        loader.pack(progress.update)
    if distributed.is_main:
        folder.create(run, context.compute)
    distributed.barrier()
    progress.log(context.description)
    progress.log(size_line(len(loader.identity), context.card.vocabulary))
    resume(context, state)
    if run.tensorboard and distributed.is_main:
        folder.tensorboard_log = TensorBoardLog(folder.path / "tensorboard", state.epoch)
    return state


def _data(context: TrainContext, split: Split) -> tuple[Loader, PKSampler]:
    run = context.run
    images = run.preprocessing
    vocabulary = context.card.vocabulary
    loader = Loader(split.train, vocabulary, images.size, images.train_interpolation, images.scaling)
    loader.pinned = context.distributed.device.type == "cuda"
    return loader, PKSampler(loader.identity.tolist(), run.sampling.identities, run.sampling.instances, run.seed)


def _evaluate_epoch(context: TrainContext, state: State, split: Split, validation: Split | None) -> bool:
    """Evaluate where that is due after an epoch; returns whether the epoch's checkpoint is the best so far."""
    run = context.run
    selection = split if run.select_on_test else validation
    last = state.epoch == run.schedule.epochs
    due = last or (run.evaluate_every > 0 and state.epoch % run.evaluate_every == 0)
    if not due or (last and selection is None):
        return selection is None
    scores = score(context, eval_model(context, state), selection or split).summary()
    _record_scores(context, state.epoch, "test" if validation is None else "held-out", scores)
    if selection is None:
        return True
    better = scores["mAP"] > state.best
    state.best = max(scores["mAP"], state.best)
    return better


def train_epoch(
    context: TrainContext, state: State, loader: Loader, batches: Sequence[Sequence[int]], estimate: bool = False
) -> None:
    """Take the remaining steps of an epoch and record its metrics.

    Args:
        context: of the training.
        state: at any step of the epoch.
        loader: of the training set.
        batches: the rows of each batch of the epoch.
        estimate: whether to log, after the first steps, how long the whole training will take.
    """
    run, distributed = context.run, context.distributed
    state.model.train()
    began, images, rate, times = perf_counter(), 0, 0.0, list[float]()
    context.progress.start(f"epoch {state.epoch}/{run.schedule.epochs}", len(batches), state.step, estimate=False)
    local = [rows[distributed.local_slice(len(rows))] for rows in batches[state.step :]]
    for batch in loader.batches(local):
        by_epoch = run.schedule.every == "epoch"
        position = state.epoch if by_epoch else state.epoch - 1 + (state.step + 1) / len(batches)
        rate = set_learning_rate(state.optimizer, run.schedule, position)
        size = len(batches[state.step])
        values = train_step(context, state, batch.to(distributed.device), (distributed.local_slice(size), size))
        state.step += 1
        images += int(values.pop("images"))
        for name, value in values.items():
            state.sums[name] = state.sums.get(name, 0.0) + float(value)
        _require_finite(context, state)
        times.append(perf_counter())
        if estimate and len(times) > 1 and _is_timed(times, state.step == len(batches)):
            _log_estimate(context, state, len(batches), times)
            estimate = False
        mean = {name: value / state.step for name, value in state.sums.items()}
        speed = images / (times[-1] - began)
        context.progress.update(
            state.step,
            f"loss {mean['loss']:.3f}  accuracy {percent(mean['accuracy'])}  lr {rate:.1e}  {speed:.0f} images/s",
        )
        if run.checkpoint_steps and state.step % run.checkpoint_steps == 0 and state.step < len(batches):
            save_checkpoint(context, state, f"epoch-{state.epoch:04d}-step-{state.step:06d}", best=False)
    seconds = perf_counter() - began
    line = {"epoch": state.epoch, "lr": rate, "seconds": seconds, "images_per_second": images / seconds}
    line |= {name: value / len(batches) for name, value in state.sums.items()}
    if context.folder is not None and distributed.is_main:
        context.folder.record(line)
    context.progress.log(epoch_line(line, run.schedule.epochs))


def _require_finite(context: TrainContext, state: State) -> None:
    if not np.isfinite(state.sums["loss"]):
        last = "" if context.folder is None else f"; {context.folder.last} is as it was"
        raise TrainingError(
            f"the loss is not finite in epoch {state.epoch}, step {state.step}: lower --optimizer.lr, or use "
            f"--precision bf16 instead of fp16{last}"
        )


def _is_timed(times: Sequence[float], is_last: bool) -> bool:
    """Whether enough steps have ended, at these seconds, to estimate the time of all."""
    return len(times) >= _TIMED_STEPS or is_last or times[-1] - times[0] >= _TIMED_SECONDS


def _log_estimate(context: TrainContext, state: State, steps: int, times: Sequence[float]) -> None:
    left = (context.run.schedule.epochs - state.epoch + 1) * steps - state.step
    seconds = left * (times[-1] - times[0]) / (len(times) - 1)
    context.progress.log(f"about {duration(seconds)} for {counted(left, 'remaining step')}, without evaluation")


def save_checkpoint(context: TrainContext, state: State, name: str, best: bool) -> None:
    """Write a checkpoint: the main process its weights and state, and with FSDP every process its shard. Returns in
    every process after the checkpoint is complete."""
    folder = context.folder
    if folder is None:
        return
    shards = None
    if state.sharded:
        shards = folder.prepare_shards(name, context.distributed.is_main)
        context.distributed.barrier()
        write_shards(shards, state.model, state.optimizer)
    weights = whole_weights(state.eval_model) if state.sharded else state.eval_model.state_dict()
    if context.distributed.is_main:
        folder.save(name, weights, context.card, state.dump(), best, shards)
    context.distributed.barrier()


def eval_model(context: TrainContext, state: State) -> TransReID:
    """The model that is measured, with all of its weights: under FSDP processes embed different numbers of images."""
    if not state.sharded:
        return state.eval_model
    model = context.card.build()
    model.load_state_dict(whole_weights(state.eval_model))
    return model.to(next(state.model.heads.parameters()).device)


def score(context: TrainContext, model: TransReID, split: Split) -> Result:
    """Measure a model on a split, as the run says; each process embeds its part."""
    embedder = Embedder(model, context.card, compute=context.compute)
    context.progress.start(f"embedding {split.name}", split.tested)
    return evaluate(
        embedder,
        split,
        context.run.evaluation,
        context.progress.update,
        lambda table, report: embed_distributed(context.distributed, embedder, table, report),
    )


def _record_scores(context: TrainContext, epoch: int, name: str, scores: dict[str, float]) -> None:
    if context.folder is not None and context.distributed.is_main:
        context.folder.record({"epoch": epoch, "evaluated": name, **scores})
    words = {"held-out": "on held-out identities", "test": "on the test set"}[name]
    context.progress.log(f"epoch {epoch}, {words}: {score_line(scores)}")
