"""How fast pictures are embedded, ViT-B/16 with JPM and SIE at 256x128: every way in one run, with its cosine.

`python benchmarks/inference/run.py [--map MODEL ROOT]`. Weights are random: they change no time. With --map, a trained
model's mAP on CUHK03-NP, in float32 and exported to int8 (needs the data: ten minutes on 2 cores).
"""

import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import torch

BATCHES = (1, 32)


def model_folder(folder: Path) -> Path:
    from resight.loading.batch import Vocabulary
    from resight.model.folder import Card, fill_model_folder
    from resight.sections import Model, Pictures
    from resight.storage import write_folder

    torch.manual_seed(0)
    vocabulary = Vocabulary(("a", "b"), tuple("123456"))
    card = Card(model=Model(side=("camera",), jpm=True), pictures=Pictures(), vocabulary=vocabulary)
    write_folder(folder, lambda path: fill_model_folder(path, card.build().state_dict(), card))
    return folder


def plain_of(embedder):
    """The plain path with the same weights: every token through every block, the parts one after another."""
    from resight.bench.plain import PlainTransReID

    net = embedder.model.backbone
    plain = PlainTransReID("vit_base_patch16_224", (256, 128), 16, True, 2, 6).eval()
    state = {}
    for name, value in net.state_dict().items():
        name = (
            name.replace("side.table", "side").replace("jigsaw.block.", "local.0.").replace("jigsaw.norm.", "local.1.")
        )
        name = name.replace("blocks.11.", "last.")
        state[name] = value[:, None] if name == "side" else value
    missing, strange = plain.load_state_dict(state, strict=False)
    assert not strange
    assert all(name.startswith(("necks", "heads")) for name in missing), missing

    def embed(x, camera):
        features, _ = plain((x.float() / 255 - 0.5) / 0.5, camera)
        return torch.nn.functional.normalize(torch.cat([features[0], *(f / 4 for f in features[1:])], 1)).numpy()

    return embed


def rate(work, batch: int) -> float:
    """Pictures a second, the median of some runs."""
    work()
    seconds = []
    while len(seconds) < 5 or (sum(seconds) < 3 and len(seconds) < 40):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return batch / median(seconds)


def speed() -> None:
    import resight
    from resight import runtime
    from resight.export import export

    with tempfile.TemporaryDirectory() as at:
        root = Path(at)
        folder = model_folder(root / "model")
        exact = resight.load(folder, "cpu", "fp32")
        generator = torch.Generator().manual_seed(0)
        small = torch.rand(64, 3, 16, 8, generator=generator) * 255
        pictures = torch.nn.functional.interpolate(small, (256, 128), mode="bicubic").clamp(0, 255).byte()
        camera = torch.arange(64) % 6
        labels = {"camera": camera, "view": torch.full((64,), -1), "modality": torch.zeros(64, dtype=torch.int64)}
        for kind in ("onnx", "openvino"):
            export(exact, root / kind, kind)
            export(exact, root / f"{kind}-int8", kind, list(pictures), int8=True)

        def ours(embedder):
            return lambda n: embedder._embed(pictures[:n], {kind: x[:n] for kind, x in labels.items()})

        def exported(name):
            network = runtime.load(root / name, 2).network
            arrays = {"pictures": pictures.numpy(), **{kind: x.numpy() for kind, x in labels.items()}}
            return lambda n: network({kind: x[:n] for kind, x in arrays.items()})

        plain = plain_of(exact)
        ways = {
            "plain float32, eager": lambda: lambda n: inference(plain, pictures[:n], camera[:n]),
            "ours, float32": lambda: ours(exact),
            "ours, bf16": lambda: ours(resight.load(folder, "cpu", "bf16")),
            "ours, bf16, compiled": lambda: ours(resight.load(folder, "cpu", "bf16", compile=True)),
            "ONNX, float32": lambda: exported("onnx"),
            "ONNX, int8": lambda: exported("onnx-int8"),
            "OpenVINO, float32": lambda: exported("openvino"),
            "OpenVINO, int8": lambda: exported("openvino-int8"),
        }
        expected, first = inference(plain, pictures[:32], camera[:32]), {}
        print(
            f"{'':24s}" + "".join(f"{f'batch {b}: pictures/s':>24s}{'ratio':>8s}" for b in BATCHES) + f"{'cosine':>10s}"
        )
        for name, make in ways.items():
            work = make()
            cells = ""
            for batch in BATCHES:
                found = rate(lambda work=work, batch=batch: work(batch), batch)
                first.setdefault(batch, found)
                cells += f"{found:24.1f}{found / first[batch]:7.1f}x"
            print(f"{name:24s}{cells}{float((expected * work(32)).sum(1).min()):10.5f}", flush=True)


def inference(plain, x, camera):
    with torch.inference_mode():
        return plain(x, camera)


def scores(model: Path, root: Path) -> None:
    """mAP on CUHK03-NP in float32 and int8, of the same pictures as the runtime sees them."""
    import resight
    from resight import runtime
    from resight.embeddings import Embedded
    from resight.evaluate import measure_embedded
    from resight.export import export
    from resight.loading.pictures import decode, resize
    from resight.sections import Evaluation

    split = resight.read("cuhk03", root)
    exact = resight.load(model, "cpu", "fp32")
    size, interpolation = exact.card.pictures.size, exact.card.pictures.test_interpolation
    some = [next(iter(s.pictures.values())) for s in list(split.train)[::29]][:256]
    with tempfile.TemporaryDirectory() as at:
        held = [resize(decode(path), size, interpolation) for path in some]
        for kind, int8 in (("openvino", False), ("openvino", True), ("onnx", True)):
            out = Path(at) / f"{kind}-{int8}"
            done = export(exact, out, kind, held, int8)
            small = runtime.load(out, 2)
            sides = []
            for table in (split.query, split.gallery):
                paths = [next(iter(s.pictures.values())) for s in table]
                sides.append(Embedded(small.embed(paths), table))
            found = measure_embedded(*sides, Evaluation(), split.protocol).summary()
            name = f"{kind} {'int8' if int8 else 'float32'}"
            print(f"{name:20s}mAP {found['mAP']:.4f}  R1 {found['R1']:.4f}  cosine {done.cosine:.5f}", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(2)
    if sys.argv[1:2] == ["--map"]:
        scores(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        speed()
