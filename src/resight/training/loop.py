"""Training, read from top to bottom.

Every draw follows from (seed, epoch, step) alone, so a run that is resumed goes on as if it had never stopped, to the
bit on a CPU.
"""

from collections.abc import Sequence
from time import perf_counter

import numpy as np
import torch
from torch import Tensor

from resight.config.run import Run
from resight.data.augment.augment import augment
from resight.data.loader import Batch, Loader
from resight.data.sampler import PKSampler
from resight.data.sightings import Split, hold_out
from resight.data.vocabulary import Vocabulary
from resight.device import Compute, processor_kind
from resight.errors import TrainingError
from resight.evaluation.evaluate import Result, evaluate
from resight.evaluation.result import figures
from resight.models.checkpoint import ModelCard, load_model
from resight.models.transreid import TransReID
from resight.progress import Progress, duration
from resight.training.distributed import DistributedContext, join
from resight.training.fsdp import clip, whole_weights, write_shards
from resight.training.lines import epoch_line, score_line
from resight.training.optimizer import freeze, set_learning_rate, update_ema
from resight.training.run_folder import RunFolder
from resight.training.state import State, choose_compute, resume, start
from resight.training.step import gradients
from resight.training.tensorboard import TensorBoardLog

_TIMED_STEPS = 12  # before the whole time is estimated; the first is not counted


def train(
    run: Run, split: Split, folder: RunFolder, progress: Progress, context: DistributedContext | None = None
) -> Result:
    """Trains as `run` says, or goes on where `folder` was left, and measures the best checkpoint on the test set.

    Args:
        run: the whole configuration.
        split: the data set; every picture of it can be decoded.
        folder: the run's folder, new or opened again; it is made once everything else is known to fit.
        screen: where progress is shown.
        team: the processes that train together; None for this one alone.

    Raises:
        ConfigError: the configuration does not fit the data or the machine.
        TrainingError: the loss is no number any more.
        StorageError: a checkpoint cannot be written; the one before it is whole.
    """
    context = context or join(run.device)
    learned, held = hold_out(split, run.validation_fraction, run.seed)
    vocabulary = Vocabulary.of(learned.train)
    card = ModelCard(model=run.model, preprocessing=run.preprocessing, vocabulary=vocabulary)
    loader = Loader(learned.train, vocabulary, run.preprocessing.size, run.preprocessing.train_interpolation)
    loader.pinned = context.device.type == "cuda"
    sampler = PKSampler(loader.identity.tolist(), run.sampling.identities, run.sampling.instances, run.seed)
    chooses = split if run.select_on_test else held

    compute = compute_again(folder, context, progress) or choose_compute(run, context)
    torch.set_num_threads(compute.threads)
    state = start(run, vocabulary, context, progress, compute)
    if run.cache:
        progress.start("packing pictures", len(loader.files))
        loader.pack(progress.update)
    if context.is_main:
        folder.create(run, compute)  # not before all of the above is known to fit
    context.barrier()
    progress.log(describe(run, compute, learned))
    resume(state, folder, card, progress, context)
    if run.tensorboard and context.is_main:
        folder.tensorboard_log = TensorBoardLog(folder.path / "tensorboard", state.epoch)
    first = state.epoch
    while state.epoch <= run.schedule.epochs:
        train_epoch(
            run, state, loader, sampler.epoch(state.epoch), context, folder, card, progress, state.epoch == first
        )
        epoch, last = state.epoch, state.epoch == run.schedule.epochs
        due = last or (run.evaluate_every > 0 and epoch % run.evaluate_every == 0)
        better = False
        if chooses is not None and due:
            found = score(run, eval_model(state, card), chooses, vocabulary, progress, compute).summary()
            better, state.best = found["mAP"] > state.best, max(found["mAP"], state.best)
            record_score(folder, progress, context, epoch, "test" if held is None else "held-out", found)
        elif due and not last:
            found = score(run, eval_model(state, card), split, vocabulary, progress, compute).summary()
            record_score(folder, progress, context, epoch, "test", found)
        state.epoch, state.step, state.sums = epoch + 1, 0, {}
        save(folder, f"epoch-{epoch:04d}", state, card, context, best=better or chooses is None)

    chosen = load_model(folder.best)[0].to(context.device)
    result = score(run, chosen, split, vocabulary, progress, compute)
    if context.is_main:
        folder.write_result({"checkpoint": folder.best.resolve().name, **figures(result, split.name)})
    return result


def compute_again(folder: RunFolder, context: DistributedContext, progress: Progress) -> Compute | None:
    """What a run that is resumed was computed with so far; None for a new run, and on another kind of device."""
    before = context.of_first(folder.read_compute())
    if before is None:
        return None
    if torch.device(before.device).type != context.device.type:
        progress.log(f"the run was computed on {before.device} so far and is resumed on {context.device.type}")
        return None
    if before.processor != processor_kind():
        progress.log(
            f"the run was computed on a processor with {before.processor} so far; on this one ({processor_kind()}) its "
            "weights can differ in the last digits"
        )
    return before


def describe(run: Run, compute: Compute, split: Split) -> str:
    """What is computed, and with what, in one line."""
    batch = run.sampling.identities * run.sampling.instances * max(1, len(split.train.modalities))
    return compute.describe(run.preprocessing.size, batch)


def train_epoch(
    run: Run,
    state: State,
    loader: Loader,
    batches: Sequence[Sequence[int]],
    context: DistributedContext,
    folder: RunFolder,
    card: ModelCard,
    progress: Progress,
    estimates: bool = False,
) -> None:
    """The steps of an epoch that are not done yet, and its line in the metrics; where it `estimates`, it says after
    the first steps how long the whole run will take."""
    state.model.train()
    began, seen, lr = perf_counter(), 0, 0.0
    progress.start(f"epoch {state.epoch}/{run.schedule.epochs}", len(batches), state.step)
    timed = list[float]()
    shares = [rows[context.local_slice(len(rows))] for rows in batches[state.step :]]
    for batch in loader.batches(shares):
        position = state.epoch if run.schedule.every == "epoch" else state.epoch - 1 + (state.step + 1) / len(batches)
        lr = set_learning_rate(state.optimizer, run.schedule, position)
        whole = len(batches[state.step])
        found = train_step(run, state, batch.to(context.device), (context.local_slice(whole), whole), context)
        state.step += 1
        seen += int(found.pop("images"))
        for name, value in found.items():
            state.sums[name] = state.sums.get(name, 0.0) + float(value)
        if not np.isfinite(state.sums["loss"]):
            raise TrainingError(
                f"the loss is no number any more in epoch {state.epoch}, step {state.step}; lower --optimizer.lr, "
                f"or use --precision bf16 instead of fp16 ({folder.last} is as it was)"
            )
        rate = seen / (perf_counter() - began)
        timed.append(perf_counter())
        if estimates and (len(timed) == _TIMED_STEPS or (state.step == len(batches) and 1 < len(timed) < _TIMED_STEPS)):
            left = (run.schedule.epochs - state.epoch + 1) * len(batches) - state.step
            seconds = left * (timed[-1] - timed[0]) / (len(timed) - 1)
            progress.log(f"about {duration(seconds)} for the {left:,} steps that are left, evaluation not counted")
        mean = {name: value / state.step for name, value in state.sums.items()}
        progress.update(state.step, f"loss {mean['loss']:.3f}  acc {mean['accuracy']:.3f}  lr {lr:.1e}  {rate:.0f}/s")
        if run.checkpoint_steps and state.step % run.checkpoint_steps == 0 and state.step < len(batches):
            save(folder, f"epoch-{state.epoch:04d}-step-{state.step:06d}", state, card, context, best=False)
    seconds = perf_counter() - began
    line = {"epoch": state.epoch, "lr": lr, "seconds": seconds, "images_per_second": seen / seconds}
    line |= {name: value / len(batches) for name, value in state.sums.items()}
    if context.is_main:
        folder.record(line)
    progress.log(epoch_line(line, run.schedule.epochs))


def train_step(
    run: Run, state: State, batch: Batch, share: tuple[slice, int], context: DistributedContext
) -> dict[str, Tensor]:
    """One step on this process's share of a batch; returns the whole batch's losses, accuracy and size."""
    seed = (run.seed, state.epoch, state.step)
    drawn = torch.Generator().manual_seed(int(np.random.SeedSequence(seed).generate_state(2, np.uint64)[1]))
    images = augment(batch.images, run.augmentation, run.preprocessing.mean, run.preprocessing.std, drawn, share)
    identity = batch.identity[batch.present.nonzero(as_tuple=True)[0]]  # [R], of every picture that is present

    state.optimizer.zero_grad(set_to_none=True)
    loss, out, identity = gradients(
        state,
        images[batch.present],
        batch.side_info(),
        identity,
        run.loss,
        state.compute.precision,
        context,
        seed,
        run.micro_batch_size,
    )
    if state.epoch <= run.optimizer.freeze_epochs:
        freeze(state.model)
    if run.optimizer.clip is not None:
        state.scaler.unscale_(state.optimizer)
        clip(state.model.parameters(), run.optimizer.clip)
    state.scaler.step(state.optimizer)
    if state.center is not None and state.center_optimizer is not None:
        state.center.rescale_gradient(run.loss.center_weight)
        state.scaler.step(state.center_optimizer)
        state.center_optimizer.zero_grad(set_to_none=True)
    state.scaler.update()
    if state.average is not None:
        update_ema(state.average, state.model, run.optimizer.ema)
    accuracy = (out.logits[0].argmax(1) == identity).float().mean()
    parts = {"loss": loss.total, "id": loss.id, "triplet": loss.triplet, "accuracy": accuracy}
    if state.center is not None:
        parts["center"] = loss.center
    return {name: value.detach() for name, value in parts.items()} | {"images": torch.tensor(len(identity))}


def save(folder: RunFolder, name: str, state: State, card: ModelCard, context: DistributedContext, best: bool) -> None:
    """Has the leader write a checkpoint, and each process its part where they share the weights out; nobody goes on
    before it is whole."""
    shards = None
    if state.sharded:
        shards = folder.place_for_shards(name, context.is_main)
        context.barrier()
        write_shards(shards, state.model, state.optimizer)
    weights = whole_weights(state.eval_model) if state.sharded else state.eval_model.state_dict()
    if context.is_main:
        folder.save(name, weights, card, state.dump(), best, shards)
    context.barrier()


def eval_model(state: State, card: ModelCard) -> TransReID:
    """The model that is measured, whole: processes that share one out embed different numbers of pictures."""
    if not state.sharded:
        return state.eval_model
    model = card.build()
    model.load_state_dict(whole_weights(state.eval_model))
    return model.to(next(state.model.heads.parameters()).device)


def score(
    run: Run, model: TransReID, split: Split, vocabulary: Vocabulary, progress: Progress, compute: Compute
) -> Result:
    """Measures a model on a split, as the run says."""
    progress.start(f"embedding {split.name}", split.tested)
    return evaluate(model, split, vocabulary, run.preprocessing, run.evaluation, compute.precision, progress.update)


def record_score(
    folder: RunFolder, progress: Progress, context: DistributedContext, epoch: int, name: str, scores: dict[str, float]
) -> None:
    """Shows and records an epoch's evaluation."""
    if context.is_main:
        folder.record({"epoch": epoch, "evaluated": name, **scores})
    progress.log(f"epoch {epoch}, {name}: {score_line(scores)}")
