"""Progress where nobody sees a moving bar: an estimate, then a line every half minute; and numbers for people."""

import io
import time

import pytest
from rich.console import Console

from resight import progress as progress_module
from resight.progress import Progress, counted, duration, percent


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
        "embedding: 5 of 1,000  loss 1.5  about 17 min left",  # the first estimate
        "embedding: 35 of 1,000  loss 1.5  about 16 min left",
        "embedding: 65 of 1,000  loss 1.5  about 16 min left",
        "embedding: 95 of 1,000  loss 1.5  about 15 min left",
    ]


def test_the_first_estimate_is_only_of_a_task_that_takes_longer(monkeypatch, capsys):
    clock = Clock(monkeypatch)
    progress = Progress()
    for total, options in ((33, {}), (1000, {"estimate": False}), (35, {})):
        progress.start("embedding", total, **options)
        for done in range(1, 11):
            clock.now += 1
            progress.update(done)
    assert capsys.readouterr().err == "embedding: 5 of 35  about 30 s left\n"


def test_a_line_every_half_minute_while_one_step_takes_longer(monkeypatch, capsys):
    """No step is reported: the thread of the `with` block calls `tick` every second."""
    clock = Clock(monkeypatch)
    progress = Progress()
    progress.tick()  # no task has been started
    progress.start("embedding", 1000)
    for seconds in range(1, 101):
        clock.now += 1
        if seconds == 50:
            progress.update(500)
        progress.tick()
    assert capsys.readouterr().err.splitlines() == [
        "embedding: 0 of 1,000  30 s so far",
        "embedding: 500 of 1,000  about 60 s left",
        "embedding: 500 of 1,000  about 90 s left",
    ]


def test_the_thread_prints_and_ends(monkeypatch, capsys):
    monkeypatch.setattr(progress_module, "_TICK", 0.001)
    monkeypatch.setattr(progress_module, "_LINE_INTERVAL", 0.0)
    with Progress() as progress:
        progress.start("reading", None)
        ticker = progress._ticker
        printed = ""
        deadline = time.monotonic() + 20
        while "reading: 0  0 s so far" not in printed and time.monotonic() < deadline:
            printed += capsys.readouterr().err
    assert "reading: 0  0 s so far" in printed
    assert not ticker.is_alive()
    with Progress(quiet=True) as silent:
        assert silent._ticker is None


@pytest.mark.parametrize(
    ("rate", "text"), [(0, "0.0 %"), (0.51249, "51.2 %"), (0.0004, "0.0 %"), (0.0005001, "0.1 %"), (1, "100.0 %")]
)
def test_rates_are_percent_with_one_decimal(rate, text):
    assert percent(rate) == text


def test_counted_nouns():
    numbers = [counted(n, "record") for n in (0, 1, 2, 1234)]
    assert numbers == ["0 records", "1 record", "2 records", "1,234 records"]
    assert [counted(n, "identity", "identities") for n in (1, 2)] == ["1 identity", "2 identities"]


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
    for now, done in ((104.999, 1), (105.0, 2), (134.5, 3), (135.0, 4), (164.5, 5), (165.0, 6)):
        clock.now = now
        progress.update(done)
    assert [line.split()[1] for line in capsys.readouterr().err.splitlines()] == ["2", "4", "6"]


def test_no_estimate_before_the_first_new_step(monkeypatch, capsys):
    clock = Clock(monkeypatch)
    progress = Progress()
    for completed, done in ((0, 0), (5, 5), (5, 6)):
        progress.start("embedding", 10, completed)
        clock.now += 30
        progress.update(done)
    assert capsys.readouterr().err.splitlines() == [
        "embedding: 0 of 10  30 s so far",
        "embedding: 5 of 10  30 s so far",
        "embedding: 6 of 10  about 2 min left",
    ]
    fresh = Progress()
    assert (fresh.initial, fresh.total, fresh.description) == (0, None, "")
