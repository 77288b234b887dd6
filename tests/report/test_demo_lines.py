"""What the demo announces, and the configuration that it trains, without painting or training anything."""

from types import SimpleNamespace

import pytest
from conftest import Log

from resight.config.recipes import tiny, vary
from resight.data.synthetic.synthetic import Plan
from resight.report import demo


@pytest.mark.parametrize(
    ("fraction", "in_all", "training"), [(1.0, "2 min", "2 min"), (0.5, "78 s", "65 s"), (0.1, "26 s", "13 s")]
)
def test_the_plan_states_each_stage_and_its_usual_time(fraction, in_all, training):
    log = Log()
    run = vary(tiny(), schedule={"epochs": 23})
    demo._print_plan(log, Plan(train=8, test=4), run, fraction)
    assert log.lines == [
        f"4 stages; on two AVX2 cores they take about {in_all} in all",
        "  1. paint               about 8 s     12 identities in 3 modalities",
        "  2. measure untrained   about 3 s     the recipe `tiny`, with random weights",
        f"  3. train               about {training:8s}23 epochs",
        "  4. rank strip          about 2 s     the best checkpoint's ranking, as a picture",
    ]


def test_a_stage_states_its_time(monkeypatch):
    now = iter([100.0, 142.0, 0.0, 200.0])
    monkeypatch.setattr(demo.time, "monotonic", lambda: next(now))
    log = Log()
    for number in (1, 4):
        with demo._stage(log, number):
            pass
    assert log.lines == ["stage 1 of 4, paint: 42 s", "stage 4 of 4, rank strip: 3 min"]


@pytest.mark.parametrize(
    ("epochs", "trained", "warmup", "training"),
    [(None, 46, 2, "2 min"), (1, 1, 0, "3 s"), (2, 2, 1, "6 s"), (23, 23, 2, "65 s")],
)
def test_the_demo_trains_what_it_announces(monkeypatch, tmp_path, capsys, epochs, trained, warmup, training):
    log, calls, out = Log(), {}, tmp_path / "demo"
    result = SimpleNamespace(summary=lambda: {"mAP": 0.51239, "R1": 1.0})

    def write(root, plan, progress):
        calls["painted"] = (root, plan)
        progress(5, 9)

    monkeypatch.setattr(demo, "synthetic", SimpleNamespace(Plan=Plan, write=write))
    monkeypatch.setattr(demo, "prepare", lambda run, split, progress: SimpleNamespace(train=split))
    monkeypatch.setattr(demo, "read_dataset", lambda name, root: calls.setdefault("read", (name, root)))
    monkeypatch.setattr(demo.Vocabulary, "of", lambda table: None)
    monkeypatch.setattr(demo, "resolve", lambda run: run)
    monkeypatch.setattr(demo, "initialize", lambda device: None)
    monkeypatch.setattr(demo.TrainContext, "create", lambda *arguments: None)
    monkeypatch.setattr(demo, "start", lambda context: SimpleNamespace(model=None))
    monkeypatch.setattr(demo, "score", lambda *arguments: SimpleNamespace(summary=lambda: {"mAP": 0.25}))
    monkeypatch.setattr(demo.RunFolder, "new", lambda path: SimpleNamespace(best=path / "best"))
    monkeypatch.setattr(demo, "train", lambda run, *arguments: calls.setdefault("run", run) and result)
    monkeypatch.setattr(demo, "rank_strip", lambda after: "strip")
    monkeypatch.setattr(demo, "save_picture", lambda picture, path: calls.setdefault("saved", (picture, path)))
    assert demo.run_demo(out, seed=7, epochs=epochs, progress=log) == demo.DemoResult(
        {"mAP": 0.25}, {"mAP": 0.51239, "R1": 1.0}, out / "run" / "best", (out / "rank_strip.png").resolve()
    )
    run = calls["run"]
    assert (run.root, run.out, run.seed) == (out / "pictures", out / "run", 7)
    assert (run.schedule.epochs, run.schedule.warmup_epochs) == (trained, warmup)
    assert calls["painted"] == (out / "pictures", Plan(seed=7))
    assert calls["read"] == ("synthetic", out / "pictures")
    assert calls["saved"] == ("strip", out / "rank_strip.png")
    assert log.started == [("painting", Plan().train + Plan().test), 5]
    assert log.lines[3] == f"  3. train               about {training:8s}{trained} epochs"
    stages = [line.partition(":")[0] for line in log.lines[5:]]
    names = ("paint", "measure untrained", "train", "rank strip")
    assert stages == [f"stage {number} of 4, {name}" for number, name in enumerate(names, start=1)]
    assert capsys.readouterr().out == ""
