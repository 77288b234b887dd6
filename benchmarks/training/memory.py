"""Peak memory of one training step of ViT-B (JPM, SIE, 256x128): a whole batch of 64, micro-batches of 8, gradient
checkpointing, and a batch of 8: `python benchmarks/training/memory.py`. Memory depends on the precision, `auto`."""

import resource
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from measure import Case, in_new_process, make_loader, make_state, paint
from timing import describe_machine

from resight.config.recipes import vary
from resight.training.step import train_step


def step(batch_size: int, micro_batch_size: int | None, gradient_checkpointing: bool) -> str:
    case = Case("vit-b", 16, True, batch_size)
    with tempfile.TemporaryDirectory() as folder:
        loader = make_loader(case, paint(Path(folder), 64, (64, 128)))
        run = vary(
            case.run("fp32"),
            precision="auto",
            micro_batch_size=micro_batch_size,
            gradient_checkpointing=gradient_checkpointing,
        )
        context, state = make_state(run, loader)
        before = peak_gb()
        for batch in loader.batches([list(range(batch_size))]):
            train_step(context, state, batch, (slice(0, batch_size), batch_size))
    return f"{peak_gb():.2f} GB, of which the step {peak_gb() - before:.2f} ({context.compute.precision})"


def peak_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    print(describe_machine())
    for batch_size, micro_batch_size, gradient_checkpointing in (
        (64, None, False),
        (64, 8, False),
        (64, None, True),
        (64, 8, True),
        (8, None, False),
    ):
        name = f"batch {batch_size}, {f'micro-batches of {micro_batch_size}' if micro_batch_size else 'whole'}"
        measured = in_new_process(step, batch_size, micro_batch_size, gradient_checkpointing)
        print(f"{name}{', gradient checkpointing' if gradient_checkpointing else ''}: {measured}", flush=True)


if __name__ == "__main__":
    main()
