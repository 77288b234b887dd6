"""Training, read from top to bottom.

Every draw follows from (seed, epoch, step) alone, so a run that is resumed goes on as if it had never stopped, to the
bit on a CPU.
"""

from collections.abc import Sequence
from dataclasses import replace
from time import perf_counter

import numpy as np
import torch
from torch import Tensor

from resight.config import Run
from resight.embed import autocast, pick_device
from resight.errors import TrainingError
from resight.evaluate import Result, evaluate
from resight.figures import figures
from resight.loading.augment import augment
from resight.loading.batch import Batch, Loader, Vocabulary
from resight.loading.sampler import PKSampler
from resight.losses.objective import objective
from resight.model.folder import Card, load_model
from resight.model.transreid import TransReID
from resight.screen import Screen, epoch_line, score_line
from resight.sightings import Split
from resight.training.optimizer import set_learning_rate
from resight.training.run_folder import RunFolder
from resight.training.state import State, resume, start


def train(run: Run, split: Split, folder: RunFolder, screen: Screen) -> Result:
    """Trains as `run` says, or goes on where `folder` was left, and measures the best checkpoint on the test set.

    Args:
        run: the whole configuration.
        split: the data set; every picture of it can be decoded.
        folder: the run's folder, new or opened again; it is made once everything else is known to fit.
        screen: where progress is shown.

    Raises:
        ConfigError: the configuration does not fit the data or the machine.
        TrainingError: the loss is no number any more.
        StorageError: a checkpoint cannot be written; the one before it is whole.
    """
    device = pick_device(run.device)
    learned, held = hold_out(split, run.held_out, run.seed)
    vocabulary = Vocabulary.of(learned.train)
    card = Card(model=run.model, pictures=run.pictures, vocabulary=vocabulary)
    loader = Loader(learned.train, vocabulary, run.pictures.size, run.pictures.train_interpolation)
    if run.cache:
        screen.begin("packing pictures", len(loader.files))
        loader.pack(screen.step)
    sampler = PKSampler(loader.identity.tolist(), run.sampling.identities, run.sampling.instances, run.seed)
    chooses = split if run.select_on_test else held

    state = start(run, vocabulary, device, screen)
    folder.begin(run)  # not before all of the above is known to fit
    resume(state, folder, card, screen)
    while state.epoch <= run.schedule.epochs:
        train_epoch(run, state, loader, sampler.epoch(state.epoch), device, folder, card, screen)
        epoch, last = state.epoch, state.epoch == run.schedule.epochs
        due = last or (run.evaluate_every > 0 and epoch % run.evaluate_every == 0)
        better = False
        if chooses is not None and due:
            found = score(run, state.model, chooses, vocabulary, screen).summary()
            better, state.best = found["mAP"] > state.best, max(found["mAP"], state.best)
            record_score(folder, screen, epoch, "test" if held is None else "held-out", found)
        elif due and not last:
            found = score(run, state.model, split, vocabulary, screen).summary()
            record_score(folder, screen, epoch, "test", found)
        state.epoch, state.step, state.sums = epoch + 1, 0, {}
        folder.save(f"epoch-{epoch:04d}", state.model, card, state.dump(), best=better or chooses is None)

    chosen = load_model(folder.best)[0].to(device)
    result = score(run, chosen, split, vocabulary, screen)
    folder.write_result({"checkpoint": folder.best.resolve().name, **figures(result, split.name)})
    return result


def train_epoch(
    run: Run,
    state: State,
    loader: Loader,
    batches: Sequence[Sequence[int]],
    device: torch.device,
    folder: RunFolder,
    card: Card,
    screen: Screen,
) -> None:
    """The steps of an epoch that are not done yet, and its line in the metrics."""
    state.model.train()
    began, seen, lr = perf_counter(), 0, 0.0
    screen.begin(f"epoch {state.epoch}/{run.schedule.epochs}", len(batches), state.step)
    for batch in loader.batches(batches[state.step :]):
        position = state.epoch if run.schedule.every == "epoch" else state.epoch - 1 + (state.step + 1) / len(batches)
        lr = set_learning_rate(state.optimizer, run.schedule, position)
        figures = train_step(run, state, batch.to(device))
        state.step += 1
        seen += int(batch.present.sum())
        for name, value in figures.items():
            state.sums[name] = state.sums.get(name, 0.0) + float(value)
        if not np.isfinite(state.sums["loss"]):
            raise TrainingError(
                f"the loss is no number any more in epoch {state.epoch}, step {state.step}; lower --optimizer.lr, "
                f"or use --precision bf16 instead of fp16 ({folder.last} is as it was)"
            )
        rate = seen / (perf_counter() - began)
        mean = {name: value / state.step for name, value in state.sums.items()}
        screen.step(state.step, f"loss {mean['loss']:.3f}  acc {mean['accuracy']:.3f}  lr {lr:.1e}  {rate:.0f}/s")
        if run.checkpoint_steps and state.step % run.checkpoint_steps == 0 and state.step < len(batches):
            folder.save(f"epoch-{state.epoch:04d}-step-{state.step:06d}", state.model, card, state.dump(), best=False)
    seconds = perf_counter() - began
    line = {"epoch": state.epoch, "lr": lr, "seconds": seconds, "pictures_per_second": seen / seconds}
    line |= {name: value / len(batches) for name, value in state.sums.items()}
    folder.record(line)
    screen.say(epoch_line(line, run.schedule.epochs))


def train_step(run: Run, state: State, batch: Batch) -> dict[str, Tensor]:
    """One step on one batch; returns its losses and accuracy."""
    generator = seed_step(run.seed, state.epoch, state.step)
    pictures = augment(batch.pictures, run.augmentation, run.pictures.mean, run.pictures.std, generator)
    identity = batch.identity[batch.present.nonzero(as_tuple=True)[0]]  # [R], of every picture that is present
    side = batch.side()
    with autocast(pictures.device, run.precision):
        out = state.model(pictures[batch.present], side, identity)
    loss = objective(out.features, out.logits, identity, run.loss, state.center, side["modality"])

    state.optimizer.zero_grad(set_to_none=True)
    state.scaler.scale(loss.total).backward()
    if run.optimizer.clip is not None:
        state.scaler.unscale_(state.optimizer)
        torch.nn.utils.clip_grad_norm_(state.model.parameters(), run.optimizer.clip)
    state.scaler.step(state.optimizer)
    if state.center is not None and state.center_optimizer is not None:
        state.center.rescale_gradient(run.loss.center_weight)
        state.scaler.step(state.center_optimizer)
        state.center_optimizer.zero_grad(set_to_none=True)
    state.scaler.update()
    accuracy = (out.logits[0].argmax(1) == identity).float().mean()
    parts = {"loss": loss.total, "id": loss.id, "triplet": loss.triplet, "accuracy": accuracy}
    if state.center is not None:
        parts["center"] = loss.center
    return {name: value.detach() for name, value in parts.items()}


def seed_step(seed: int, epoch: int, step: int) -> torch.Generator:
    """Seeds torch for one step (drop-path, dropout) and returns a generator for its augmentation."""
    model, pictures = np.random.SeedSequence((seed, epoch, step)).generate_state(2, np.uint64)
    torch.manual_seed(int(model))
    return torch.Generator().manual_seed(int(pictures))


def hold_out(split: Split, share: float, seed: int) -> tuple[Split, Split | None]:
    """Keeps a share of the training identities aside: what is left to learn from, and a split that asks each picture
    of those kept aside against all the others (None where the share is 0)."""
    if share == 0:
        return split, None
    identities = split.train.values("identity")
    count = max(1, round(share * len(identities)))
    kept = set(np.random.default_rng(seed).choice(identities, count, replace=False).tolist())
    aside = split.train.of_identities(kept)
    learned = split.train.of_identities(set(identities) - kept)
    return (
        replace(split, train=learned),
        replace(split, name=f"{split.name}, held out", train=learned, query=aside, gallery=aside),
    )


def score(run: Run, model: TransReID, split: Split, vocabulary: Vocabulary, screen: Screen) -> Result:
    """Measures a model on a split, as the run says."""
    screen.begin(f"embedding {split.name}", split.tested)
    return evaluate(model, split, vocabulary, run.pictures, run.evaluation, run.precision, screen.step)


def record_score(folder: RunFolder, screen: Screen, epoch: int, name: str, scores: dict[str, float]) -> None:
    """Shows and records an epoch's evaluation."""
    folder.record({"epoch": epoch, "evaluated": name, **scores})
    screen.say(f"epoch {epoch}, {name}: {score_line(scores)}")
