"""Pictures and small data sets that tests paint for themselves."""

import getpass
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from resight.config.sections import Model, Preprocessing
from resight.data.synthetic import synthetic
from resight.data.vocabulary import Vocabulary
from resight.device import processor_kind
from resight.files import write_folder
from resight.models.checkpoint import ModelCard, fill_model_folder, load_model

SHARED = Path(__file__).parents[2] / "shared"
torch.set_num_threads(1)  # the suite runs in as many processes as there are cores
os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the processes that tests start
os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"  # torch.compile starts processes otherwise, which takes longer here
# torch.compile stores machine code, and would use what it compiled for AVX-512 under variables that limit it to AVX2.
KIND = processor_kind().replace(" ", "-")
os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(Path(tempfile.gettempdir()) / f"resight-tests-{getpass.getuser()}-{KIND}")


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    """Nothing is packed into the cache of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RESIGHT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def _one_thread():
    """A test that trains or loads a model may set the threads of its run: the next one computes with one again."""
    yield
    if torch.get_num_threads() != 1:
        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def painted(tmp_path_factory) -> Path:
    """A painted data set of a few identities, in RGBNT201's layout."""
    root = tmp_path_factory.mktemp("painted") / "data"
    synthetic.write(root, synthetic.Plan(train=6, test=4, cameras=2, shots=2))
    return root


@pytest.fixture
def market(tmp_path) -> Path:
    """A tiny folder in Market-1501's layout: 6 training identities, 4 tested, two cameras."""
    root = tmp_path / "market"
    for folder, identities, shots in (("bounding_box_train", range(1, 7), 2), ("query", range(7, 11), 1)):
        for identity in identities:
            for camera in (1, 2):
                for shot in range(shots):
                    picture(root / folder / f"{identity:04d}_c{camera}s1_{shot:06d}_00.jpg", identity, camera)
    for identity in (-1, 0, *range(7, 11)):
        for camera in (1, 2):
            name = "-1" if identity == -1 else f"{identity:04d}"
            picture(root / "bounding_box_test" / f"{name}_c{camera}s1_{9:06d}_00.jpg", identity, camera)
    (root / "bounding_box_test" / "Thumbs.db").write_bytes(b"x")
    return root


def picture(path: Path, identity: int = 0, camera: int = 0, size=(32, 64)) -> Path:
    """A picture whose colours follow from the identity, a little noisy by the camera."""
    rng = np.random.default_rng(identity + 100)
    colours = rng.integers(0, 255, (4, 1, 3)).repeat(size[1] // 4, 0).repeat(size[0], 1)
    noise = np.random.default_rng(camera).integers(-20, 20, colours.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((colours + noise).clip(0, 255).astype(np.uint8)).save(path, quality=95)
    return path


def small_model(folder: Path, cameras=("c1", "c2"), modalities=("rgb",), mean=(0.5, 0.5, 0.5), **settings) -> Path:
    """A model's folder, of a tiny network with weights drawn at random, side information's too."""
    torch.manual_seed(0)
    model = Model(**{"backbone": "test_vit", "sie": ("camera",), **settings})
    vocabulary = Vocabulary(("a", "b"), cameras, (), modalities)
    card = ModelCard(model=model, preprocessing=Preprocessing(size=(64, 32), mean=mean), vocabulary=vocabulary)
    network = card.build()
    if model.sie:
        network.backbone.sie.table.data.normal_()
    write_folder(folder, lambda path: fill_model_folder(path, network.state_dict(), card))
    return folder


def varied_model(folder: Path, spread: float = 0.3, **options) -> Path:
    """As `small_model`, with weights far enough from 0 that the embeddings of different pictures differ widely."""
    model, card = load_model(small_model(folder.with_name(f"{folder.name}-before"), **options))
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1 and "sie" not in name:
            parameter.data.add_(spread * torch.randn(parameter.shape, generator=generator))
    write_folder(folder, lambda path: fill_model_folder(path, model.state_dict(), card))
    return folder


def write_onnx(file: Path) -> None:
    """A network of another program, which takes images of 16x8 pixels."""
    import onnx  # only a few tests need it
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("AveragePool", ["input"], ["means"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Flatten", ["means"], ["rows"]),
    ]
    takes = helper.make_tensor_value_info("input", TensorProto.FLOAT, ("batch", 3, 16, 8))
    gives = helper.make_tensor_value_info("rows", TensorProto.FLOAT, ("batch", 24))
    graph = helper.make_graph(nodes, "net", [takes], [gives])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), file)


class Log:
    """Stands for a `Progress`: collects the lines and the steps that it would print."""

    def __init__(self):
        self.lines = []
        self.started = []

    def log(self, text):
        self.lines.append(text)

    def start(self, description, total):
        self.started.append((description, total))

    def update(self, completed):
        self.started.append(completed)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None
