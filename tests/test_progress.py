"""Progress where nobody sees a moving bar: a line every half minute, with what is left."""

import pytest

from resight import progress as progress_module
from resight.progress import Progress, duration


class Clock:
    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(progress_module.time, "monotonic", lambda: self.now)


def test_a_line_every_half_minute(monkeypatch, capsys):
    clock = Clock(monkeypatch)
    with Progress() as progress:
        progress.start("embedding", 1000)
        for done in range(1, 101):
            clock.now += 1
            progress.update(done, "loss 1.5")
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "embedding: 30 of 1,000  loss 1.5  about 16 min left",
        "embedding: 60 of 1,000  loss 1.5  about 16 min left",
        "embedding: 90 of 1,000  loss 1.5  about 15 min left",
    ]


def test_what_was_done_before_is_not_part_of_the_rate(monkeypatch, capsys):
    clock = Clock(monkeypatch)
    progress = Progress()
    progress.start("embedding", 1000, 900)
    clock.now += 40
    progress.update(920)
    assert capsys.readouterr().err == "embedding: 920 of 1,000  about 160 s left\n".replace("160 s", "3 min")


def test_a_task_of_unknown_length_has_no_estimate(monkeypatch, capsys):
    clock = Clock(monkeypatch)
    progress = Progress()
    progress.start("adding", None)
    clock.now += 31
    progress.update(5000)
    assert capsys.readouterr().err == "adding: 5,000\n"


def test_quiet_prints_nothing(monkeypatch, capsys):
    clock = Clock(monkeypatch)
    progress = Progress(quiet=True)
    progress.start("adding", 10)
    clock.now += 31
    progress.update(5)
    progress.log("a line")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (40, "40 s"),
        (99, "99 s"),
        (100, "2 min"),
        (180, "3 min"),
        (5970, "1 h 40 min"),
        (9000, "2 h 30 min"),
    ],
)
def test_durations(seconds, text):
    assert duration(seconds) == text
