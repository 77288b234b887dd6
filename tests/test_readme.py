"""Every command and code block of the README and of docs/, run at a tiny size in a folder that holds what it names."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import golden_cases
import pytest
import torch
from conftest import picture
from safetensors.torch import save_file

from resight.cli import main
from resight.config.sections import Model
from resight.models.backbones.vit import plain_vit
from resight.retrieval.junk import RULES
from resight.retrieval.protocols import PROTOCOLS

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
SMALL = "--device cpu --model.backbone test_vit --preprocessing.size 64 32 --schedule.epochs 1 --sampling.identities 2"
SMALL += " --sampling.instances 2"


@pytest.fixture
def desk(tmp_path, market, monkeypatch) -> Path:
    """A folder with the pictures and weights that the README speaks of."""
    monkeypatch.chdir(tmp_path)
    market.rename(tmp_path / "Market-1501-v15.09.15")
    for identity in range(12):
        for shot in range(3):
            picture(tmp_path / "my_pictures" / f"id{identity}" / f"{shot}.jpg", identity, shot)
    for n, name in enumerate(("a.jpg", "b.jpg", "new.jpg")):
        picture(tmp_path / name, n, n)
    weights = plain_vit(Model(backbone="test_vit"), (160, 160)).state_dict()
    save_file(weights, tmp_path / "vit_small_patch14_dinov2.safetensors")
    torch.save(weights, tmp_path / "jx_vit_base_p16_224.pth")
    torch.save(golden_cases.load("deit_small_baseline").state, tmp_path / "transformer_120.pth")
    yaml = "MODEL:\n  TRANSFORMER_TYPE: deit_small_patch16_224_TransReID\n  SIE_CAMERA: True\n"
    (tmp_path / "vit_transreid_stride.yml").write_text(yaml)
    return tmp_path


def run(command: str) -> None:
    words = shlex.split(command, comments=True)
    if words[0] == "make":  # this suite runs under one of them; that each is there, and what it would do, is checked
        done = subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, capture_output=True, text=True, check=True)
        assert {"demo": "resight demo", "test": "pytest"}[words[1]] in done.stdout
        return
    if words[0] == "torchrun":
        at = words.index("resight.cli")
        launch = [sys.executable, "-m", "torch.distributed.run", *words[1 : at + 1]]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run([*launch, *words[at + 1 :], *SMALL.split()], check=True, env=environment, capture_output=True)
        return
    assert words[0] == "resight"
    if "hall.parquet" in words and not shutil.which("ffmpeg"):
        return  # the rest of the page does not need it
    if words[1] in ("train", "lr") and "--root" in words:
        words += SMALL.split()
    try:
        status = main(words[1:])
    except SystemExit as ended:  # of --help
        status = ended.code
    assert status == 0


def blocks(page: Path) -> list[tuple[str, str]]:
    return re.findall(r"^```(\w+)\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def run_page(page: Path) -> dict:
    """Runs the blocks in order; returns the names that the Python ones made."""
    names: dict = {}
    for language, block in blocks(page):
        assert language in ("sh", "python")
        if language == "python":
            exec(compile(block, page.name, "exec"), names)
        else:
            for command in block.strip().splitlines():
                run(command)
    return names


@pytest.mark.slow
def test_every_block_of_the_readme(desk):
    assert shutil.which("make")
    assert run_page(ROOT / "README.md")["similarity"].diagonal() == pytest.approx(1.0, abs=1e-5)
    for made in ("runs/mine/best/model.safetensors", "strip.png", "figures.json", "models/market/config.json"):
        assert (desk / made).exists()


@pytest.mark.slow
def test_every_block_of_the_protocols(desk):
    rows = [f"my_pictures/id{i}/{n}.jpg,id{i},cam{n}" for i in range(12) for n in range(3)]
    (desk / "my_pictures.csv").write_text("\n".join(["path,identity,camera", *rows]) + "\n")
    run("resight train own --root my_pictures.csv --weights vit_small_patch14_dinov2.safetensors --out runs/mine")
    names = run_page(ROOT / "docs" / "protocols.md")
    assert set(names["result"].summary()) >= {"mAP", "mINP", "R1"}
    for made in ("reliability.png", "runs/mine/best/calibration.json", "smaller/about.json", "reranked.json"):
        assert (desk / made).exists()


@pytest.mark.slow
def test_every_block_of_galleries(desk, capsys):
    run("resight train own --root my_pictures --weights vit_small_patch14_dinov2.safetensors --out runs/mine")
    (desk / "hall.txt").write_text("".join(f"{n},1,{n},5,20,40,0.9\n" for n in range(1, 6)))
    if shutil.which("ffmpeg"):
        made = "ffmpeg -v error -f lavfi -i testsrc=size=96x64:rate=5 -t 1 hall.mkv"
        subprocess.run(shlex.split(made), check=True)
    names = run_page(ROOT / "docs" / "gallery.md")
    assert names["rows"].shape == (2, names["small"].width)
    assert (desk / "embeddings.parquet").exists()
    assert (desk / "seen-copy" / "gallery.json").exists()
    assert {"id3", "id4"} & set(capsys.readouterr().out.split())


@pytest.mark.slow
def test_every_block_of_training(desk):
    (desk / "Market-1501-v15.09.15").rename(desk / "Market")
    shutil.copytree(desk / "Market", desk / "Duke", ignore=shutil.ignore_patterns("-1*"))
    run_page(ROOT / "docs" / "training.md")
    assert (desk / "runs" / "many" / "result.json").exists()


def test_the_page_of_protocols_names_each_with_its_test():
    page = (ROOT / "docs" / "protocols.md").read_text()
    rows = re.findall(r"^\| `([\w-]+)` \|.*?\| `([\w-]+)` \|.*\| `(test_\w+)` \|$", page, re.MULTILINE)
    assert {name: rule for name, rule, _ in rows} == {p.name: p.rule for p in PROTOCOLS.values()}
    tests = (ROOT / "tests" / "test_protocols.py").read_text()
    assert all(f"def {test}(" in tests for _, _, test in rows)
    rules = page[page.index("## Rules") : page.index("## What the figures are")]
    assert set(re.findall(r"^\| `([\w-]+)` \|", rules, re.MULTILINE)) == set(RULES)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_lead_to_files_that_are_there(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        assert target.startswith("http") or (page.parent / target).exists(), target
