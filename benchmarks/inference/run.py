"""How fast images are embedded, ViT-B/16 with JPM and SIE at 256x128: every implementation in one run, with its cosine.

`python benchmarks/inference/run.py [--map MODEL ROOT]`. Weights are random: they change no time. With --map, a trained
model's mAP on CUHK03-NP, in float32 and exported to int8 (needs the data: ten minutes on 2 cores).
"""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

sys.path.extend([str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "training")])
from timing import describe_machine, median_seconds

BATCHES = (1, 32)
RUNS = {1: 30, 32: 5}
CELL_SECONDS = 30.0  # one cell takes about this long at most
Embed = Callable[[int], np.ndarray]
"""The embeddings of the first so many images."""


def model_folder(folder: Path) -> Path:
    from resight.config.sections import Model, Preprocessing
    from resight.data.vocabulary import Vocabulary
    from resight.files import write_folder
    from resight.models.checkpoint import ModelCard, fill_model_folder

    torch.manual_seed(0)
    vocabulary = Vocabulary(("a", "b"), tuple("123456"))
    card = ModelCard(model=Model(sie=("camera",), jpm=True), preprocessing=Preprocessing(), vocabulary=vocabulary)
    write_folder(folder, lambda path: fill_model_folder(path, card.build().state_dict(), card))
    return folder


def plain_of(embedder):
    """The plain implementation with the same weights: every token through every block, the parts one after another."""
    from plain import PlainTransReID

    plain = PlainTransReID("vit_base_patch16_224", (256, 128), 16, True, 2, 6).eval()
    renamed = {"sie.table": "sie", "jpm.block.": "local.0.", "jpm.norm.": "local.1.", "blocks.11.": "last."}
    state = {}
    for name, value in embedder.model.backbone.state_dict().items():
        for ours, theirs in renamed.items():
            name = name.replace(ours, theirs)
        state[name] = value[:, None] if name == "sie" else value
    missing, unexpected = plain.load_state_dict(state, strict=False)
    assert not unexpected, unexpected
    assert all(name.startswith(("necks", "heads")) for name in missing), missing

    def embed(images, camera):
        with torch.inference_mode():
            features, _ = plain((images.float() / 255 - 0.5) / 0.5, camera)
            return F.normalize(torch.cat([features[0], *(f / 4 for f in features[1:])], 1)).numpy()

    return embed


def random_images() -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """uint8 [64, 3, 256, 128], and the labels of their side information: int64 [64] by kind."""
    small = torch.rand(64, 3, 16, 8, generator=torch.Generator().manual_seed(0)) * 255
    images = F.interpolate(small, (256, 128), mode="bicubic").clamp(0, 255).byte()
    zeros = torch.zeros(64, dtype=torch.int64)
    return images, {"camera": torch.arange(64) % 6, "view": zeros - 1, "modality": zeros}


def speed() -> None:
    import resight
    from resight.inference import runtime
    from resight.inference.export import export

    print(describe_machine())
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        folder = model_folder(root / "model")
        exact = resight.load(folder, "cpu", "fp32")
        images, labels = random_images()
        for kind in ("onnx", "openvino"):
            export(exact, root / kind, kind)
            export(exact, root / f"{kind}-int8", kind, list(images), int8=True)
        plain = plain_of(exact)

        def ours(embedder) -> Embed:
            return lambda n: embedder._forward(images[:n], {kind: x[:n] for kind, x in labels.items()})

        def exported(name: str) -> Embed:
            network = runtime.load(root / name, torch.get_num_threads()).network
            arrays = {"images": images.numpy(), **{kind: x.numpy() for kind, x in labels.items()}}
            return lambda n: network({kind: x[:n] for kind, x in arrays.items()})

        automatic = resight.load(folder, "cpu")
        rows: dict[str, Callable[[], Embed]] = {
            "plain float32, eager": lambda: lambda n: plain(images[:n], labels["camera"][:n]),
            f"ours, auto ({automatic.compute.precision})": lambda: ours(automatic),
            "ours, float32": lambda: ours(exact),
            "ours, bf16": lambda: ours(resight.load(folder, "cpu", "bf16")),
            "ours, bf16, compiled": lambda: ours(resight.load(folder, "cpu", "bf16", compile=True)),
            "ONNX, float32": lambda: exported("onnx"),
            "ONNX, int8": lambda: exported("onnx-int8"),
            "OpenVINO, float32": lambda: exported("openvino"),
            "OpenVINO, int8": lambda: exported("openvino-int8"),
        }
        header = "".join(f"{f'batch {batch}: images/s':>24s}{'ratio':>8s}" for batch in BATCHES)
        print(f"{'':24s}{header}{'cosine':>10s}", flush=True)
        expected = plain(images[:32], labels["camera"][:32])
        plain_rates: list[float] = []
        for name, make in rows.items():
            rates, cosine, note = measure_row(make(), expected, compiled="compiled" in name)
            plain_rates = plain_rates or rates
            cells = "".join(f"{rate:24.4g}{rate / base:7.2f}x" for rate, base in zip(rates, plain_rates, strict=True))
            print(f"{name:24s}{cells}{cosine:10.5f}{note}", flush=True)


def measure_row(embed: Embed, expected: np.ndarray, compiled: bool) -> tuple[list[float], float, str]:
    """Measure the images/s of each batch size, and the least cosine to the expected embeddings.

    Where one image takes so long that the larger batch would take minutes, as bf16 does on most processors, a smaller
    batch is measured in its place, and the note says so.
    """
    rates, note, count = list[float](), "", 0
    embeddings = expected

    def work() -> None:
        nonlocal embeddings
        embeddings = embed(count)

    for batch in BATCHES:
        fits = batch if not rates else max(1, min(batch, int(CELL_SECONDS * rates[-1])))
        if fits < batch:
            note = f"  (batch {fits} in place of {batch})"
        if fits == count:
            rates.append(rates[-1])
            continue
        count = fits
        if compiled:
            work()  # compiles for this size
        rates.append(count / median_seconds(work, RUNS[batch], CELL_SECONDS))
    return rates, float((expected[:count] * embeddings).sum(1).min()), note


def scores(model: Path, root: Path) -> None:
    """Print mAP on CUHK03-NP in float32 and int8, of the same images as the runtime sees them."""
    import resight
    from resight.config.evaluation import Evaluation
    from resight.data.image import decode, resize
    from resight.evaluation.evaluate import measure
    from resight.inference import runtime
    from resight.inference.embeddings import Embeddings
    from resight.inference.export import export

    print(describe_machine())
    split = resight.read_dataset("cuhk03", root)
    exact = resight.load(model, "cpu", "fp32")
    size, interpolation = exact.card.preprocessing.size, exact.card.preprocessing.test_interpolation
    files = [next(iter(sighting.images.values())) for sighting in list(split.train)[::29]][:256]
    with tempfile.TemporaryDirectory() as temporary:
        images = [resize(decode(path), size, interpolation) for path in files]
        for kind, int8 in (("openvino", False), ("openvino", True), ("onnx", True)):
            out = Path(temporary) / f"{kind}-{int8}"
            report = export(exact, out, kind, images, int8)
            exported = runtime.load(out, torch.get_num_threads())
            sides = []
            for table in (split.query, split.gallery):
                paths = [next(iter(sighting.images.values())) for sighting in table]
                sides.append(Embeddings(exported.embed(paths), table))
            summary = measure(*sides, Evaluation(), split.protocol).summary()
            name = f"{kind} {'int8' if int8 else 'float32'}"
            print(f"{name:20s}mAP {summary['mAP']:.4f}  R1 {summary['R1']:.4f}  cosine {report.cosine:.5f}", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--map"]:
        scores(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        speed()
