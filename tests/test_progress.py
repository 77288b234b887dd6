"""Progress where nobody sees a moving bar: a line every half minute, with what is left."""

import io

import pytest
from rich.console import Console

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


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(99.4, "99 s"), (99.5, "2 min"), (5940, "99 min"), (5969, "99 min"), (7260, "2 h 1 min"), (86400, "24 h 0 min")],
)
def test_durations_at_the_changes_of_unit(seconds, text):
    assert duration(seconds) == text


@pytest.fixture
def terminal(monkeypatch):
    """A clock, and a progress bar on a terminal of 80 columns that is drawn when the test says so."""
    clock = Clock(monkeypatch)
    progress = Progress()
    progress.console = Console(
        file=io.StringIO(), force_terminal=True, width=80, highlight=False, color_system=None, legacy_windows=False
    )
    progress.bar.live.console = progress.console
    progress.bar.live.auto_refresh = False
    monkeypatch.setattr(progress.bar, "get_time", lambda: clock.now)
    return clock, progress


def drawn(progress):
    """The line of the bar, without the bar itself."""
    with progress.console.capture() as capture:
        progress.console.print(progress.bar.get_renderable())
    return capture.get().replace("━", "").replace("╸", "").replace("╺", "").split()


def test_the_bar_at_the_start_in_the_middle_and_at_the_end(terminal):
    clock, progress = terminal
    progress.start("embedding", 40)
    assert drawn(progress) == ["embedding", "0/40", "-:--:--"]
    clock.now += 10
    progress.update(10, "loss 1.5")
    clock.now += 10
    progress.update(20, "loss 1.2")
    assert drawn(progress) == ["embedding", "20/40", "loss", "1.2", "0:00:20"]
    clock.now += 20
    progress.update(40)
    assert drawn(progress) == ["embedding", "40/40", "0:00:00"]
    progress.start("ranking", 7, completed=3)
    assert drawn(progress) == ["ranking", "3/7", "-:--:--"]


def test_the_bar_of_an_unknown_total_after_a_known_one(terminal):
    _, progress = terminal
    progress.start("embedding", 40)
    progress.start("adding", None)
    assert drawn(progress) == ["adding", "0/?"]


def test_a_terminal_has_a_bar_and_no_lines(terminal):
    clock, progress = terminal
    with progress:
        assert progress.bar.live.is_started
        progress.start("embedding", 40)
        clock.now += 100
        progress.update(20)
        progress.log("a line " * 20)
    assert not progress.bar.live.is_started
    printed = progress.console.file.getvalue()
    assert "of 40" not in printed
    assert "a line " * 20 in printed  # in one line, wider than the terminal


def test_without_a_terminal_no_bar_is_started(capsys):
    with Progress() as progress:
        assert not progress.bar.live.is_started
        progress.log("5 of 1,000")
    assert capsys.readouterr().err == "5 of 1,000\n"


@pytest.mark.parametrize("folder", ["[raw]", "[/raw]"])
def test_square_brackets_in_a_name_are_printed(capsys, folder):
    Progress().log(f"skipped: /data/{folder}/a.jpg is empty")
    assert capsys.readouterr().err == f"skipped: /data/{folder}/a.jpg is empty\n"


def test_a_line_after_half_a_minute_and_not_before(monkeypatch, capsys):
    clock = Clock(monkeypatch)
    progress = Progress()
    progress.start("embedding", 100)
    for now, done in ((129.999, 1), (130.0, 2), (159.5, 3), (160.0, 4)):
        clock.now = now
        progress.update(done)
    assert [line.split()[1] for line in capsys.readouterr().err.splitlines()] == ["2", "4"]


def test_no_estimate_before_the_first_new_step(monkeypatch, capsys):
    clock = Clock(monkeypatch)
    progress = Progress()
    for completed, done in ((0, 0), (5, 5), (5, 6)):
        progress.start("embedding", 10, completed)
        clock.now += 30
        progress.update(done)
    assert capsys.readouterr().err.splitlines() == [
        "embedding: 0 of 10",
        "embedding: 5 of 10",
        "embedding: 6 of 10  about 2 min left",
    ]
    fresh = Progress()
    assert (fresh.initial, fresh.total, fresh.description) == (0, None, "")
