"""The command line: one module for each verb. This module imports none of them, so that help is instant."""

import os
import signal
import sys
import threading
from importlib import import_module
from io import TextIOWrapper

# The threads of numpy's matrix products wait for the next one without sleeping, for 20 ms, unless this is set before
# numpy is imported. In a service with a small gallery, this took as much processor time as all other work.
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")

VERBS = {
    "demo": "Train a small three-modality TransReID on synthetic images, and draw its ranking.",
    "train": "Train a recipe, or resume a run.",
    "lr-find": "Run a learning rate range test on a recipe.",
    "evaluate": "Evaluate a model or a file of embeddings under any protocol: CMC, mAP, mINP, open set.",
    "compare": "Compare two evaluations on the same queries, with confidence intervals.",
    "calibrate": "Fit the probability of the same identity, and a threshold for a false match rate, to a model.",
    "similarity": "Compute the similarity of two images.",
    "explain": "Draw why two images are similar: where the model looks, and which patches resemble each other.",
    "extract": "Write the embeddings of many images, or of boxes in a video, into one file; resumable.",
    "gallery": "Store embeddings, search them, assign identities, cluster, and remove records.",
    "serve": "Serve a gallery by HTTP: search by picture, for programs and agents.",
    "keys": "Create, list and revoke keys of the service.",
    "export": "Export a model to ONNX, OpenVINO or torch.export, and check it against the original.",
    "import-onnx": "Make a model folder of an ONNX file of another program.",
    "summary": "Print the stages of a recipe's model, with shapes, parameters and FLOPs.",
    "convert": "Convert a checkpoint of another implementation to a model folder.",
    "push": "Publish a model folder on the Hugging Face Hub, with a page that describes it.",
    "models": "List known published weights, their figures and licences, and how to convert them.",
    "data": "Inspect data sets, list the catalog, clean the cache.",
    "recipes": "List the recipes of resight train.",
    "protocols": "List the evaluation protocols.",
}


def main(arguments: list[str] | None = None) -> int:
    """Run a verb, and return the exit status: 2 with a one-sentence message for an error that a user can fix."""
    words = sys.argv[1:] if arguments is None else arguments
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name of a file can have any bytes
    from resight.errors import ResightError

    # torchrun ends the processes of a training with SIGTERM, and they must not wait for each other then
    if words[:1] != ["train"] and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _end)
    try:
        _run(words)
        sys.stdout.flush()  # here, where a closed pipe is no error
    except ResightError as error:
        return _refuse(str(error))
    except BrokenPipeError:  # the reading process, such as head, has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.filename is None:
            raise
        return _refuse(f"{error.filename} cannot be read or written: {error.strerror}")
    except KeyboardInterrupt as interrupt:
        print(f"resight: interrupted; {str(interrupt) or 'nothing was written'}", file=sys.stderr)
        return 130
    return 0


def _end(number: int, frame: object) -> None:
    """End as `sys.exit` does, so that nothing incomplete is left on disk."""
    raise SystemExit(128 + number)


def _run(words: list[str]) -> None:
    from resight.errors import ConfigError, unknown

    if not words or words[0] in ("-h", "--help"):
        print(_usage())
        return
    if words[0] == "--version":
        from resight import __version__

        print(f"resight {__version__}")
        return
    if words[0] not in VERBS:
        raise unknown("verb", words[0], VERBS)
    for word in words:
        if not word or (word.startswith("--") and word.endswith("=")):
            raise ConfigError(f"an argument of resight {words[0]} is empty: perhaps a variable of the shell is not set")
        if "\0" in word:
            raise ConfigError(f"the argument {word!r} has a NUL character, which no name or value can have")
    import_module(f"resight.cli.{words[0].replace('-', '_')}").run(words[1:])


def _refuse(reason: str) -> int:
    """Print why a command is refused as one line, whatever characters the names in it have; return the exit status."""
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in reason)
    print(f"resight: {line}", file=sys.stderr)
    return 2


def _usage() -> str:
    lines = ["Resight: have I seen this one before, and where?\n", "usage: resight VERB [OPTIONS]"]
    lines += ["       resight VERB --help", "       resight --version\n"]
    lines += [f"  {name:12s}{description}" for name, description in VERBS.items()]
    lines += [
        "",
        "resight VERB --help explains a verb; resight --version prints the version.",
        "--json prints one JSON object on standard output; rates are percent in tables, and from 0 to 1 in JSON.",
    ]
    return "\n".join(lines)
