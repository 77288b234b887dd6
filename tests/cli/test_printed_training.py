"""What `resight train` and `resight lr-find` print, and what they train, without training anything."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from cli_helpers import lines, refused, tables, texts

from resight.cli import main
from resight.config.recipes import find
from resight.config.run import Run
from resight.training.run_folder import RunFolder


def test_lr_find(capsys, monkeypatch):
    curve = SimpleNamespace(rates=[1e-6, 0.001234567], losses=[6.54321, 2.0], steepest=0.00034567)
    calls, plots = [], []
    monkeypatch.setattr(
        "resight.training.lr_finder.find_learning_rate", lambda *a: calls.append((a[:-1], a[-1].console.quiet)) or curve
    )
    monkeypatch.setattr("resight.report.curves.rate_curve", lambda *a: plots.append(a))
    printed = ["1.000e-06  6.5432", "1.235e-03  2.0000"]
    says = "the loss falls fastest at 3.5e-04; --optimizer.lr is "
    assert lines(capsys, "lr-find", "tiny") == [*printed, f"{says}2.0e-03"]
    assert not plots
    more = ["--low", 0.01, "--high", 0.5, "--steps", 7, "--optimizer.lr", 0.1, "--plot", "c.png", "--quiet"]
    assert lines(capsys, "lr-find", "tiny", *more) == [*printed, f"{says}1.0e-01", "curve: c.png"]
    tiny = find("tiny")
    changed = tiny.changed(optimizer=tiny.optimizer.changed(lr=0.1))
    assert calls == [((tiny, None, 1e-6, 1.0, 100), False), ((changed, None, 0.01, 0.5, 7), True)]
    assert plots == [(curve.rates, curve.losses, curve.steepest, Path("c.png"))]
    assert refused(capsys, "lr-find", "tiny", "--stepz", 3).endswith("resight lr-find tiny --help lists the options")


class Training:
    """What a training reaches for, in the place of the real things."""

    def __init__(self, monkeypatch, size=1, is_main=True, is_restarted=False):
        self.trained = []
        self.ended = 0
        distributed = SimpleNamespace(size=size, is_main=is_main)
        for name, value in (
            ("distributed.initialize", lambda device: distributed),
            ("distributed.restarted", lambda: is_restarted),
            ("distributed.shut_down", self.shut_down),
            ("loop.train", self.train),
            ("resolve.resolve", lambda run: None),
            ("resolve.root_of", lambda run: None),
        ):
            monkeypatch.setattr(f"resight.training.{name}", value)
        monkeypatch.setattr("resight.evaluation.result.figures", lambda result, name: {"dataset": name, "mAP": 0.51249})
        self.distributed = distributed

    def shut_down(self):
        self.ended += 1

    def train(self, run, split, folder, progress, distributed):
        assert split is None
        assert distributed is self.distributed
        self.trained.append((run, folder.path, progress.console.quiet))
        info = SimpleNamespace(dataset="few")
        return SimpleNamespace(
            query=SimpleNamespace(info=info), protocol=SimpleNamespace(name="market"),
            summary=lambda: {"mAP": 0.51249, "mINP": 0.1, "R1": 0.75551, "R5": 0.99951, "R10": 1.0},
        )  # fmt: skip


NAMES = ["mAP", "mINP", "R1", "R5", "R10"]


@pytest.mark.parametrize("how", ["new", "resume", "config"])
def test_train(capsys, monkeypatch, tmp_path, how):
    training = Training(monkeypatch)
    run = find("tiny").changed(out=tmp_path / "run", seed=3)
    command = ["train", "tiny", "--out", tmp_path / "run", "--seed", 3]
    if how == "resume":
        (tmp_path / "run").mkdir()
        monkeypatch.setattr("resight.training.run_folder.RunFolder.open", lambda path: (RunFolder(path), run))
        command = ["train", "--resume", tmp_path / "run"]
    if how == "config":
        (tmp_path / "c.json").write_text(run.changed(seed=1).model_dump_json())
        command = ["train", "--config", tmp_path / "c.json", "--seed", 3]
    printed = lines(capsys, *command)
    assert training.trained == [(run, tmp_path / "run", False)]
    assert training.ended == 1
    rates = ["51.2 %", "10.0 %", "75.6 %", "100.0 %", "100.0 %"]
    assert tables(printed) == [("few, protocol market, 46 epochs", [NAMES, rates])]
    assert texts(printed) == [f"run: {tmp_path / 'run'}", f"model: {tmp_path / 'run' / 'best'}"]


def test_train_refuses_what_it_does_not_understand(capsys, monkeypatch, tmp_path):
    Training(monkeypatch)
    for words in (["--resume"], ["--resume", tmp_path, "--seed"], ["--resume", "a", "b"]):
        assert refused(capsys, "train", *words) == (
            "--resume takes a run folder, and no other option but --json and --quiet: the folder has the configuration"
        )
    assert refused(capsys, "train", "--config") == (
        "--config takes a configuration file, such as runs/NAME/config.json"
    )
    (tmp_path / "c.json").write_text(Run().model_dump_json())
    assert refused(capsys, "train", "--config", tmp_path / "c.json", "--sed", 1).endswith(
        f"; resight train --config {tmp_path / 'c.json'} --help lists the options"
    )
    assert refused(capsys, "train", "tiny", "--sed", 1).endswith("; resight train tiny --help lists the options")


@pytest.mark.parametrize("is_main", [True, False])
def test_several_processes_need_a_folder(capsys, monkeypatch, tmp_path, is_main):
    training = Training(monkeypatch, size=2, is_main=is_main)
    assert refused(capsys, "train", "tiny").startswith("several processes need --out FOLDER")
    printed = lines(capsys, "train", "tiny", "--out", tmp_path / "run")
    assert bool(printed) == is_main
    assert [trained[1:] for trained in training.trained] == [(tmp_path / "run", not is_main)]


@pytest.mark.parametrize(
    ("is_main", "is_restarted", "has_config", "allowed"),
    [
        (True, False, False, False), (True, False, True, False), (True, True, True, True), (True, True, False, False),
        (False, False, False, True), (False, False, True, True),
    ],
)  # fmt: skip
def test_a_run_folder_that_exists_is_taken_only_when_it_is_the_same_run(
    capsys, monkeypatch, tmp_path, is_main, is_restarted, has_config, allowed
):
    training = Training(monkeypatch, size=2, is_main=is_main, is_restarted=is_restarted)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ("config.json" if has_config else "other")).write_text("{}")
    command = ["train", "tiny", "--out", str(tmp_path / "run")]
    assert main(command) == (0 if allowed else 2)
    assert len(training.trained) == allowed
