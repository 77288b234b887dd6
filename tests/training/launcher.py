"""Trainings in processes of their own, without the seconds in which each process imports torch.

`python launcher.py` imports everything once, and forks a process for each training that it reads on its standard input:
one that trains, or the agent of torchrun, which forks the processes that train. It answers with the id of that process
and, when it is to wait for one, with its exit status. One test starts `torchrun` itself.
"""

import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from uuid import uuid4


class Launcher:
    """A launcher in a process of its own; a context manager, which ends it."""

    def __init__(self):
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        command = [sys.executable, __file__]
        self._process = subprocess.Popen(command, env=environment, start_new_session=True, **pipes)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        os.killpg(self._process.pid, signal.SIGKILL)  # trainings that did not end, too
        self._process.communicate()

    def start(self, words, errors: Path, processes: int = 2) -> int:
        """Start processes that run the words of a command; what they print as errors is written to a file."""
        return self._ask({"words": [str(word) for word in words], "errors": str(errors), "processes": processes})

    def wait(self, process: int) -> int:
        """Wait for the end of a training, and return its exit status."""
        return self._ask({"wait": process})

    def _ask(self, question: dict) -> int:
        print(json.dumps(question), file=self._process.stdin, flush=True)
        assert select.select([self._process.stdout], [], [], 300)[0], "there is no answer for 300 seconds"
        return int(self._process.stdout.readline())


def _serve() -> None:
    """Answer each line; a child process leaves through `os._exit`."""
    for line in sys.stdin:
        question = json.loads(line)
        if "wait" in question:
            answer = os.waitstatus_to_exitcode(os.waitpid(question["wait"], 0)[1])
        else:
            answer = os.fork()
            if not answer:
                _run(**question)
        print(answer, flush=True)


def _run(words: list[str], errors: str, processes: int) -> None:
    status = 1
    try:
        with open(errors, "wb") as file, open(os.devnull, "r+b") as nothing:
            for stream, number in ((nothing, 0), (nothing, 1), (file, 2)):
                os.dup2(stream.fileno(), number)
        config = LaunchConfig(  # as of torchrun --standalone --nproc-per-node 2 --max-restarts 2
            1, 1, processes, run_id=str(uuid4()), rdzv_backend="c10d", rdzv_endpoint="localhost:0", max_restarts=2,
            start_method="fork",
        )  # fmt: skip
        elastic_launch(config, _train)(words) if processes > 1 else _train(words)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def _train(words: list[str]) -> None:
    if status := main(words):
        sys.exit(status)


if __name__ == "__main__":
    import traceback

    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    import resight.cli.train
    import resight.training.fsdp
    import resight.training.loop  # noqa: F401  imported before the fork
    from resight.cli import main

    _serve()
