"""Every block of the README, of docs/ and of CONTRIBUTING.md runs, at a tiny size, in a folder with what it names.

The recipes are replaced by tiny variants of themselves, so that a block trains in a second. One model is trained for
all pages; each page starts from a copy of its run folder.
"""

import json
import re
import shlex
import shutil
import subprocess
from functools import partial
from pathlib import Path

import golden_cases
import numpy as np
import pytest
import timm
import torch
from conftest import picture, write_onnx
from fake_hub import TOKEN, FakeHub
from safetensors.torch import save, save_file

import resight
from resight.cli import main
from resight.cli.run_options import parse_run
from resight.cli.train import Train
from resight.config import recipes
from resight.config.run import Run
from resight.config.sections import Model
from resight.data import catalog
from resight.losses import margins
from resight.models.backbones.build import build_backbone
from resight.models.backbones.vit import plain_vit
from resight.retrieval import junk, protocols
from resight.service.settings import ServiceSettings

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
OTHERS = [ROOT / "CHANGELOG.md", ROOT / "SECURITY.md"]
IDENTITIES = 12
IMAGES = 3  # of an identity
MAKE = {
    "demo": "resight demo",
    "test": "pytest",
    "test-slow": "-m slow",
    "check": "ruff",
    "test-avx2": "ONEDNN_MAX_CPU_ISA=AVX2",
}
NOT_RUN = ("pip", "git", "cd", "source", ".", "apt", "docker")  # of the machine, not of Resight


def small(run: Run) -> Run:
    """The same run with a tiny network and one epoch."""
    return recipes.vary(
        run, device="cpu", model={"backbone": "test_vit"}, preprocessing={"size": (64, 32)},
        sampling={"identities": 2, "instances": 2}, schedule={"epochs": 1, "warmup_epochs": 0},
    )  # fmt: skip


@pytest.fixture(autouse=True)
def registries(monkeypatch):
    """Tiny recipes; and what a block adds to a list of names is taken out again."""
    for name, recipe in list(recipes.RECIPES.items()):
        tiny = partial(lambda of: small(of()), recipe)
        tiny.__doc__ = recipe.__doc__
        monkeypatch.setitem(recipes.RECIPES, name, tiny)
        monkeypatch.setattr(recipes, recipe.__name__, tiny)
    names = ((catalog, "CATALOG"), (catalog, "PROTOCOLS"), (margins, "MARGINS"), (protocols, "PROTOCOLS"))
    stored = [(getattr(module, name), dict(getattr(module, name))) for module, name in names]
    yield
    for registry, entries in stored:
        registry.clear()
        registry.update(entries)


@pytest.fixture(scope="module")
def stock(tmp_path_factory) -> Path:
    """The images, tables, weights and boxes that the pages name."""
    folder = tmp_path_factory.mktemp("stock")
    lines = ["path,identity,camera"]
    for identity in range(IDENTITIES):
        for shot in range(IMAGES):
            path = picture(folder / "my_images" / f"id{identity}" / f"{shot}.jpg", identity, shot)
            lines.append(f"{path.relative_to(folder)},id{identity},cam{shot}")
    (folder / "my_images.csv").write_text("\n".join(lines) + "\n")
    for n, name in enumerate(("a.jpg", "b.jpg", "new.jpg")):
        picture(folder / name, n, n)
    weights = plain_vit(Model(backbone="test_vit"), (160, 160)).state_dict()
    save_file(weights, folder / "vit_small_patch14_dinov2.safetensors")
    torch.save(weights, folder / "jx_vit_base_p16_224.pth")
    write_onnx(folder / "osnet_x0_25.onnx")
    yaml = "MODEL:\n  TRANSFORMER_TYPE: deit_small_patch16_224_TransReID\n  SIE_CAMERA: True\n"
    (folder / "vit_transreid_stride.yml").write_text(yaml)
    (folder / "hall.txt").write_text("".join(f"{n},1,{n},5,20,40,0.9\n" for n in range(1, 6)))
    return folder


@pytest.fixture
def desk(tmp_path, market, stock, monkeypatch) -> Path:
    """A folder with the images and weights that the pages name, as the working directory."""
    monkeypatch.chdir(tmp_path)
    market.rename(tmp_path / "Market-1501-v15.09.15")
    shutil.copytree(stock, tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.fixture(scope="module")
def trained(stock, tmp_path_factory) -> Path:
    """A run folder: the recipe `own` on the table of images, for the pages that start from a model."""
    folder = tmp_path_factory.mktemp("trained") / "mine"
    weights = stock / "vit_small_patch14_dinov2.safetensors"
    options = ["--root", str(stock / "my_images.csv"), "--weights", str(weights), "--out", str(folder)]
    options += ["--device", "cpu", "--model.backbone", "test_vit", "--preprocessing.size", "64", "32"]
    options += ["--sampling.identities", "2", "--sampling.instances", "2", "--schedule.epochs", "1"]
    assert main(["train", "own", *options]) == 0
    return folder


@pytest.fixture
def mine(desk, trained) -> Path:
    """The desk with the trained model at runs/mine/best."""
    shutil.copytree(trained, desk / "runs" / "mine", symlinks=True)
    return desk


def run(command: str) -> None:
    words = shlex.split(command, comments=True)
    while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):  # variables: a test process has its own already
        words.pop(0)
    if not words or words[0] in NOT_RUN:
        return
    if words[0] == "make":  # this suite runs under one of them; that each exists, and what it would do, is checked
        done = subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, capture_output=True, text=True, check=True)
        assert MAKE[words[1]] in done.stdout
        return
    if words[0] == "torchrun":  # tests/training/test_distributed.py starts processes
        parse_run(words[words.index("train") + 1 :], "resight train", Train)
        return
    if words[0] in ("python", "pytest", ".venv/bin/python", ".venv/bin/pytest"):
        paths = [word.split("::")[0] for word in words if word.startswith(("tests/", "benchmarks/"))]
        assert paths
        assert all((ROOT / path).exists() for path in paths), paths
        return
    assert words[0] == "resight", command
    if {"hall.mkv", "hall.parquet"} & set(words) and not shutil.which("ffmpeg"):
        return
    try:
        status = main(words[1:])
    except SystemExit as ended:  # of --help
        status = ended.code
    assert status == 0, command


def blocks(page: Path) -> list[tuple[str, str]]:
    return re.findall(r"^```(\w+)\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def run_page(page: Path) -> dict:
    """Run the blocks in order; returns the names that the Python ones made."""
    names: dict = {}
    for language, block in blocks(page):
        assert language in ("sh", "python", "text"), language
        if language == "python":
            exec(compile(block, page.name, "exec"), names)
        elif language == "sh":
            for command in block.strip().replace("\\\n", " ").splitlines():
                run(command)
    return names


def test_every_block_of_the_readme(desk):
    assert shutil.which("make")
    torch.save(golden_cases.load("deit_small_baseline").state, desk / "transformer_120.pth")
    run_page(ROOT / "README.md")
    assert (desk / "runs" / "mine" / "best" / "model.safetensors").exists()


def test_every_block_of_backbones(mine):
    torch.save(golden_cases.load("deit_small_baseline").state, mine / "personvit.pth")
    names = run_page(ROOT / "docs" / "backbones.md")
    assert names["conversion"].card.model.pooling == "mean"
    assert (
        resight.load(mine / "models" / "osnet-2").embedding_id == resight.load(mine / "models" / "osnet").embedding_id
    )


def test_every_block_of_weights(mine, monkeypatch):
    """The Hub is a local server; it has the model that the page names, and a network of timm."""
    constants = pytest.importorskip("huggingface_hub").constants
    net = timm.create_model("test_vit", num_classes=0, img_size=160)
    settings = {"input_size": [3, 160, 160], "mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic"}
    config = json.dumps({"architecture": "test_vit", "pretrained_cfg": settings}).encode()
    (mine / "player-reid").mkdir()
    (mine / "player-reid" / "reid_config.json").write_text(json.dumps({"architecture": "osnet_x0_25"}))
    tensors = convert_to_reid(Model(backbone="osnet_x0_25", drop_path=0.0))
    save_file(tensors, mine / "player-reid" / "weights.safetensors")
    with FakeHub() as hub:
        for name, value in {
            "ENDPOINT": hub.url, "HF_HUB_CACHE": str(mine / "cache"), "HF_HUB_DISABLE_XET": True,
            "HUGGINGFACE_CO_URL_TEMPLATE": hub.url + "/{repo_id}/resolve/{revision}/{filename}",
        }.items():  # fmt: skip
            monkeypatch.setattr(constants, name, value)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        best = mine / "runs" / "mine" / "best"
        commit = hub.add("my-org/vehicles", {file.name: file.read_bytes() for file in best.iterdir() if file.is_file()})
        hub.repositories["my-org/vehicles"].refs["v1"] = commit
        files = {"config.json": config, "model.safetensors": save(net.state_dict())}
        hub.add("timm/vit_small_patch14_dinov2.lvd142m", files)
        names = run_page(ROOT / "docs" / "weights.md")
        page = hub.repositories["my-org/vehicles"].commits[hub.repositories["my-org/vehicles"].refs["main"]][
            "README.md"
        ]
    assert "## Figures" in page.decode()
    assert "Finding vehicles of our car park again." in page.decode()
    assert names["published"].url.endswith(hub.repositories["my-org/vehicles"].refs["candidate"])


def convert_to_reid(settings: Model) -> dict[str, torch.Tensor]:
    """The tensors of an OSNet by the names of torchreid, which are those of `reid`."""
    network = build_backbone(settings, (256, 128), {"camera": 0, "view": 0, "modality": 1})
    named = {}
    for key, tensor in network.state_dict().items():
        name = key.replace("stem.", "conv1.").replace("last.", "conv5.")
        name = re.sub(r"stages\.(\d)\.2\.", lambda m: f"conv{int(m[1]) + 2}.2.0.", name)
        name = re.sub(r"stages\.(\d)\.", lambda m: f"conv{int(m[1]) + 2}.", name)
        name = re.sub(r"streams\.0\.0\.", "conv2a.", name)
        name = re.sub(r"streams\.([123])\.", lambda m: f"conv2{'abcd'[int(m[1])]}.", name)
        named[name] = tensor
    return named


def test_every_block_of_contributing():
    assert shutil.which("make")
    run_page(ROOT / "CONTRIBUTING.md")


def test_every_block_of_first_steps(desk):
    names = run_page(ROOT / "docs" / "first-steps.md")
    assert names["answers"][0][0].record.identity
    for made in ("figures.json", "strip.png", "seen/gallery.sqlite", "runs/again/best/model.safetensors"):
        assert (desk / made).exists(), made


def test_every_block_of_the_protocols(mine):
    names = run_page(ROOT / "docs" / "protocols.md")
    assert set(names["result"].summary()) >= {"mAP", "mINP", "R1"}
    for made in ("reliability.png", "runs/mine/best/calibration.json", "smaller.parquet", "reranked.json"):
        assert (mine / made).exists(), made


def test_every_block_of_galleries(mine, capsys):
    names = run_page(ROOT / "docs" / "gallery.md")
    for made in ("seen-copy", "backup", "seen-repaired", "seen-again", "hall-copy", "hall-again", "hall-repaired"):
        assert (mine / made / "gallery.sqlite").exists(), made
    assert names["report"].lost == []
    assert names["report"].copied == IDENTITIES * IMAGES
    assert {"id3", "id4"} & set(capsys.readouterr().out.split())


def test_every_block_of_pictures(mine, capsys):
    run_page(ROOT / "docs" / "pictures.md")
    grey, width, postscript = capsys.readouterr().out.strip().splitlines()[-3:]
    page = (ROOT / "docs" / "pictures.md").read_text()
    assert f"# {postscript}\n" in page
    assert f"# {grey.split(':')[0]}: ...\n" in page
    assert re.fullmatch(r"\(1, \d+\) False", width)


def test_every_block_of_embedding(mine):
    if shutil.which("ffmpeg"):
        made = "ffmpeg -v error -f lavfi -i testsrc=size=96x64:rate=5 -t 1 hall.mkv"
        subprocess.run(shlex.split(made), check=True)
    names = run_page(ROOT / "docs" / "embedding.md")
    assert names["rows"].shape == (2, names["exported"].width)
    assert np.allclose(np.linalg.norm(names["features"], axis=1), 1, atol=1e-5)
    assert (mine / "embeddings.parquet").exists()


def test_every_block_of_the_service(mine, capsys, monkeypatch):
    served = []
    monkeypatch.setattr("resight.service.server.serve", served.append)  # tests/service/test_process.py runs the process
    # UMAP takes 20 seconds to be compiled; tests/report/test_embedding_map.py runs it.
    monkeypatch.setattr("resight.report.embedding_map.project", lambda vectors, seed: vectors[:, :2].copy())
    run_page(ROOT / "docs" / "service.md")
    assert [(str(settings.model), settings.gallery) for settings in served] == [("runs/mine/best", "seen")]
    assert (mine / "state" / "keys.json").exists()
    settings = (ROOT / "src" / "resight" / "service" / "security" / "permissions.py").read_text()
    page = (ROOT / "docs" / "service.md").read_text()
    for path in re.findall(r"/v1/[a-z/]+[a-z]", page[page.index("## Routes") : page.index("To repeat")]):
        assert f'"{path}' in settings, path


def test_every_block_of_the_deployment(mine):
    """Its commands start servers; tests/service/test_deploy.py runs them."""
    text = (ROOT / "docs" / "deployment.md").read_text()
    run_page(ROOT / "docs" / "deployment.md")
    for name in re.findall(r"RESIGHT_[A-Z_]+", text):
        assert name.removeprefix("RESIGHT_").lower() in ServiceSettings.model_fields, name


def test_every_block_of_training(mine):
    (mine / "Market-1501-v15.09.15").rename(mine / "Market")
    shutil.copytree(mine / "Market", mine / "Duke", ignore=shutil.ignore_patterns("-1*"))
    run_page(ROOT / "docs" / "training.md")
    assert (mine / "runs" / "both" / "result.json").exists()
    assert (mine / "runs" / "edge" / "teacher.json").exists()
    assert '"int8":true' in (mine / "exported" / "export.json").read_text().replace(" ", "")


def test_every_block_of_modalities(desk, painted):
    shutil.copytree(painted, desk / "RGBNT201")
    for modality, folder in (("rgb", "RGB"), ("nir", "NI"), ("tir", "TI")):
        (desk / "mast" / modality).mkdir(parents=True)
        for n, path in enumerate(sorted((painted / "test" / folder).glob("*.jpg"))[:8], start=1):
            if (n, modality) != (2, "nir"):
                shutil.copy(path, desk / "mast" / modality / f"{n:04d}.jpg")
    names = run_page(ROOT / "docs" / "modalities.md")
    assert names["matrix"].mean_ap.shape == (7, 7)
    assert names["vector"].shape == (1, names["model"].width)
    assert [len(row) for row in names["answers"]] == [3]
    for made in ("matrix.png", "mast.parquet", "exported/export.json"):
        assert (desk / made).exists(), made


def test_every_block_of_the_walkthrough(capsys):
    names = run_page(ROOT / "docs" / "walkthrough.md")  # tests/report/test_walkthrough_forms.py compares the output
    assert names["step"].shape == (4, 64)
    assert "| **fused feature** |" in capsys.readouterr().out


def test_every_block_of_processors(mine):
    names = run_page(ROOT / "docs" / "processors.md")
    assert names["compute"].precision in ("fp32", "bf16")


@pytest.mark.parametrize("page", sorted((ROOT / "docs" / "extend").glob("*.md")), ids=lambda page: page.stem)
def test_every_block_of_extending(mine, page):
    assert any(language == "python" for language, _ in blocks(page))
    run_page(page)


def test_every_page_is_run():
    source = Path(__file__).read_text()
    for page in PAGES:
        assert page.parent.name == "extend" or f'"{page.name}")' in source, page


def test_the_page_of_protocols_names_each_with_its_test():
    page = (ROOT / "docs" / "protocols.md").read_text()
    rows = re.findall(r"^\| `([\w-]+)` \|.*?\| `([\w-]+)` \|.*\| `(test_\w+)` \|$", page, re.MULTILINE)
    assert {name: rule for name, rule, _ in rows} == {p.name: p.rule for p in protocols.PROTOCOLS.values()}
    tests = (ROOT / "tests" / "retrieval" / "test_protocols.py").read_text()
    assert all(f"def {test}(" in tests for _, _, test in rows)
    rules = page[page.index("## Rules") : page.index("## What the figures are")]
    assert set(re.findall(r"^\| `([\w-]+)` \|", rules, re.MULTILINE)) == set(junk.RULES)


@pytest.mark.parametrize("page", [*PAGES, *OTHERS], ids=lambda page: page.name)
def test_links_lead_to_files_and_named_files_exist(page):
    text = page.read_text()
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert target.startswith("http") or (page.parent / target).exists(), target
    for named in re.findall(r"`((?:src|tests|benchmarks|docs)/[\w./-]+\.\w+)`", text):
        assert (ROOT / named).exists(), named
