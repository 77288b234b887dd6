"""Every command and code block of the README, run at a tiny size in a folder that holds what it names."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import golden_cases
import pytest
import torch
from conftest import picture
from safetensors.torch import save_file

from resight.cli import main
from resight.config import Model
from resight.model.backbone import plain_vit

ROOT = Path(__file__).parents[1]
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
SMALL = "--device cpu --model.backbone test_vit --pictures.size 64 32 --schedule.epochs 1 --sampling.identities 2"
SMALL += " --sampling.instances 2"


@pytest.fixture
def desk(tmp_path, market, monkeypatch) -> Path:
    """A folder with the pictures and weights that the README speaks of."""
    monkeypatch.chdir(tmp_path)
    market.rename(tmp_path / "Market-1501-v15.09.15")
    for identity in range(12):
        for shot in range(3):
            picture(tmp_path / "my_pictures" / f"id{identity}" / f"{shot}.jpg", identity, shot)
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
    assert words[0] == "resight"
    if words[1:2] == ["train"] and "--root" in words:
        words += SMALL.split()
    try:
        status = main(words[1:])
    except SystemExit as ended:  # of --help
        status = ended.code
    assert status == 0


@pytest.mark.slow
def test_every_block_of_the_readme(desk):
    assert shutil.which("make")
    assert {language for language, _ in BLOCKS} == {"sh", "python"}
    for language, block in BLOCKS:
        if language == "python":
            names: dict = {}
            exec(compile(block, "README.md", "exec"), names)
            assert names["similarity"].diagonal() == pytest.approx(1.0, abs=1e-5)
            continue
        for command in block.strip().splitlines():
            run(command)
    for made in ("runs/mine/best/model.safetensors", "strip.png", "figures.json", "models/market/config.json"):
        assert (desk / made).exists()


def test_the_readme_leads_to_files_that_are_there():
    for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / "README.md").read_text()):
        assert target.startswith("http") or (ROOT / target).exists(), target
