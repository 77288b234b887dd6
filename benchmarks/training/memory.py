"""Peak memory of one training step of ViT-B (JPM, SIE, 256x128): a batch of 64 whole, in pieces of 8, with recomputed
blocks, and a batch of 8: `python benchmarks/training/memory.py`."""

import resource
import subprocess
import sys
import tempfile
from pathlib import Path


def step(batch: int, piece: int | None, recompute: bool) -> None:
    import torch

    from resight.bench.training import Case, _loader, _run, paint
    from resight.recipes import vary
    from resight.screen import Screen
    from resight.training.loop import train_step
    from resight.training.state import start
    from resight.training.team import Team

    with tempfile.TemporaryDirectory() as folder:
        loader = _loader(paint(Path(folder), 64, (64, 128)))
        run = vary(_run(Case("vit_base_patch16_224", 16, True, batch)), piece=piece, recompute=recompute)
        team = Team(0, 1, torch.device("cpu"))
        state = start(run, loader.vocabulary, team, Screen(quiet=True))
        state.model.train()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for rows in loader.batches([list(range(batch))]):
            train_step(run, state, rows, (slice(0, batch), batch), team)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"{after / 2**20:.2f} GB, of which the step {(after - before) / 2**20:.2f}")


def main() -> None:
    for batch, piece, recompute in (
        (64, None, False),
        (64, 8, False),
        (64, None, True),
        (64, 8, True),
        (8, None, False),
    ):
        code = f"import memory; memory.step({batch}, {piece}, {recompute})"
        words = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); {code}"]
        said = subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
        print(
            f"batch {batch}, {f'pieces of {piece}' if piece else 'whole'}{', recomputed' if recompute else ''}: {said}"
        )


if __name__ == "__main__":
    main()
