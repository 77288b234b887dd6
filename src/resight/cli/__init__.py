"""The command line. This file knows only the names of the verbs, so that help is instant; each verb is a file beside it."""

import os
import sys
from importlib import import_module

VERBS = {
    "demo": "Paint a data set, train a small three-modality TransReID on it, and show its ranking.",
    "train": "Train a recipe, or resume a run.",
    "lr-find": "Try learning rates on a recipe and say where its loss falls fastest.",
    "evaluate": "Measure a model, or a file of embeddings, under any protocol: CMC, mAP, mINP, open set.",
    "compare": "Say whether one measured run is better than another, query by query.",
    "calibrate": "Fit similarity to probability, and a threshold for a wanted false match rate, into a model's folder.",
    "similarity": "Compare two pictures.",
    "extract": "Write the embeddings of many images, or of boxes in a video, into one file; resumable.",
    "gallery": "Store embeddings, search them, assign identities, cluster, and remove records.",
    "export": "Write a model as ONNX, for OpenVINO or torch.export, checked before it is stored.",
    "summary": "Run a recipe's model once and print every tensor between its stages.",
    "convert": "Turn a checkpoint of the reference implementation into a model folder.",
    "data": "Inspect data sets, list the catalog, clean the cache.",
    "recipes": "List the recipes of resight train.",
    "protocols": "List the evaluation protocols.",
}


def main(arguments: list[str] | None = None) -> int:
    """Run a verb; an error that a user can fix ends with one sentence and status 2."""
    given = sys.argv[1:] if arguments is None else arguments
    if not given or given[0] in ("-h", "--help"):
        print(_usage())
        return 0
    if given[0] == "--version":
        from resight import __version__

        print(f"resight {__version__}")
        return 0
    from resight.errors import ResightError, unknown

    try:
        if given[0] not in VERBS:
            raise unknown("verb", given[0], VERBS)
        import_module(f"resight.cli.{given[0].replace('-', '_')}").run(given[1:])
    except ResightError as error:
        print(f"resight: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            "resight: interrupted; run the same command again, or resight train --resume RUN, to continue",
            file=sys.stderr,
        )
        return 130
    except BrokenPipeError:  # the reader, such as head, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return 0


def _usage() -> str:
    lines = ["Resight: have I seen this one before, and where?\n", "usage: resight VERB [OPTIONS]\n"]
    lines += [f"  {name:12s}{says}" for name, says in VERBS.items()]
    return "\n".join([*lines, "\nresight VERB --help explains a verb; resight --version prints the version."])
