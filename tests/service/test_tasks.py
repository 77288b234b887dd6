"""Tasks in the background: progress, results, limits, and the end of the service; the map's layout."""

import asyncio
import re
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

from resight.errors import ConfigError
from resight.service.errors import ServiceError
from resight.service.page import progress
from resight.service.work import background, layout
from resight.service.work.background import Background


@pytest.fixture
def tasks():
    return Background(SimpleNamespace(close=lambda: None))


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 30))


async def read_events(service, task):
    return [event async for event in progress.events(service, task)]


def service_of(tasks, request_seconds=30.0):
    return SimpleNamespace(background=tasks, settings=SimpleNamespace(request_seconds=request_seconds))


def test_a_task_reports_and_returns(tasks):
    async def use():
        async def function(task):
            task.report("Reading", 3, 7)
            await asyncio.sleep(0.4)
            return "the result"

        task = tasks.start("Counting", "/map?task={task}", function)
        events = await read_events(service_of(tasks), task)
        assert tasks.find(task.id) is task
        return task, events

    task, events = run(use())
    assert (task.result, task.error, task.address) == ("the result", None, f"/map?task={task.id}")
    reading = next(event for event in events if "Reading: 3 of 7" in event)
    assert 'max="7" value="3"' in reading
    assert f'hx-get="{task.address}"' in events[-2]
    assert events[-1] == "event: end\ndata: end\n\n"
    for event in events:
        assert re.fullmatch(r"(event: \w+\n)?(data: .*\n)+\n", event), "each line of HTML is a line of data"


@pytest.mark.parametrize(
    ("error", "sentence"),
    [(ServiceError(503, "it is full"), "it is full"), (ConfigError("too few"), "too few"),
     (ZeroDivisionError("secret"), "the service has a fault; its log says where")],
)  # fmt: skip
def test_a_task_that_fails_is_one_sentence(tasks, error, sentence):
    async def use():
        async def function(task):
            raise error

        task = tasks.start("Failing", "/", function)
        await task.has_ended_within(5)
        with pytest.raises(ServiceError) as refused:
            progress.result_of(task)
        return refused.value

    refusal = run(use())
    assert (refusal.status, refusal.reason) == (422, sentence)


def test_few_tasks_run_and_few_are_remembered(tasks, monkeypatch):
    async def use():
        release = asyncio.Event()

        async def function(task):
            await release.wait()

        running = [tasks.start("Waiting", "/", function) for _ in range(background._MAX_RUNNING)]
        with pytest.raises(ServiceError, match="4 tasks run already"):
            tasks.start("One more", "/", function)
        release.set()
        for task in running:
            assert await task.has_ended_within(5)
        for _ in range(background._MAX_ENDED):
            await tasks.start("Quick", "/", function).has_ended_within(5)
        with pytest.raises(ServiceError, match="no such task") as refused:
            tasks.find(running[0].id)
        assert refused.value.status == 404

    run(use())


def test_the_end_waits_for_what_must_finish_and_ends_the_rest(tasks):
    async def use():
        done = []

        async def write(task):
            await asyncio.sleep(0.3)
            done.append(task.id)

        async def read(task):
            await asyncio.sleep(60)

        writing, reading = tasks.start("Adding", "/", write, must_finish=True), tasks.start("Map", "/", read)
        stream = asyncio.create_task(read_events(service_of(tasks), reading))
        await asyncio.sleep(0.05)
        tasks.end_streams()
        events = await stream
        assert "The service is ending" in events[-2]
        assert events[-1].startswith("event: end")
        await tasks.finish()
        assert done == [writing.id]
        assert reading.error == "the service is ending"
        with pytest.raises(ServiceError, match="the service is ending"):
            tasks.start("Late", "/", read)

    run(use())


def test_a_stream_ends_before_a_request_may_last(tasks):
    async def use():
        async def function(task):
            await asyncio.sleep(60)

        task = tasks.start("Long", "/", function)
        began = time.monotonic()
        events = await read_events(service_of(tasks, request_seconds=1.0), task)
        await tasks.finish()
        return events, time.monotonic() - began

    events, seconds = run(use())
    assert 0.4 < seconds < 10
    assert "event: end" not in events[-1], "the browser connects again"


def test_explanations_do_not_pile_up(tasks):
    async def use():
        release = threading.Event()
        running = [asyncio.create_task(tasks.explain(release.wait)) for _ in range(background._MAX_EXPLANATIONS)]
        await asyncio.sleep(0.05)
        with pytest.raises(ServiceError, match="too many explanations"):
            await tasks.explain(release.wait)
        release.set()
        await asyncio.gather(*running)
        assert await tasks.explain(lambda: 3) == 3

    run(use())


def test_the_layout_is_computed_again_where_embeddings_changed(monkeypatch):
    calls = []

    async def in_process(function, vectors):
        assert function is layout.project
        calls.append(len(vectors))
        return np.zeros((len(vectors), 2), np.float32)

    monkeypatch.setattr(layout, "_in_process", in_process)
    layouts = layout.Layouts()
    vectors = np.eye(3, dtype=np.float32)

    async def use():
        for ids, used in ((["a", "b", "c"], vectors), (["a", "b", "c"], vectors), (["a", "b", "c"], -vectors),
                          (["a", "b"], vectors[:2])):  # fmt: skip
            await layouts.of(ids, used)

    run(use())
    assert calls == [3, 3, 2]


def test_a_layout_is_computed_by_another_process():
    vectors = np.eye(3, dtype=np.float32)
    np.testing.assert_array_equal(run(layout._in_process(np.negative, vectors)), -vectors)
    with pytest.raises(ServiceError, match="its process has ended"):
        run(layout._in_process(np.linalg.cholesky, -vectors))


def test_a_task_that_ends_while_its_progress_is_sent_shows_its_result(tasks):
    async def use():
        task = background.Task("Map", "/map?task={task}", must_finish=False)
        events = []
        async for event in progress.events(service_of(tasks), task):
            events.append(event)
            task.ended.set()
        return task, events

    task, events = run(use())
    assert "<progress" in events[0]
    assert f'hx-get="{task.address}"' in events[-2], "the last text loads the result"
    assert events[-1] == "event: end\ndata: end\n\n"
