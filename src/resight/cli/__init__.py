"""The command line. This file knows only the verbs' names, so that help is instant; each verb is a file beside it."""

import os
import sys
from importlib import import_module

VERBS = {
    "demo": "Paint a data set, train a tiny three-modality TransReID on it, and show what it finds.",
    "train": "Train a recipe (RECIPE, or --from CONFIG.json), or go on with a run (--resume FOLDER).",
    "lr": "Try learning rates on a recipe and say where its loss falls fastest.",
    "evaluate": "Measure a model, or embeddings on disk, under any protocol: CMC, mAP, mINP, open set.",
    "compare": "Say whether one measured run is better than another, query by query.",
    "extract": "Write the embeddings of many pictures into one file; goes on where it was stopped.",
    "gallery": "Keep embeddings, search them, say who they are, and forget them (gallery create, add, search, ...).",
    "link": "Group a gallery's records into identities.",
    "export": "Write a model as ONNX, for OpenVINO or torch.export, checked before it is kept.",
    "calibrate": "Fit similarity to probability, and a threshold for a wanted false match rate, into a model's folder.",
    "shapes": "Run a recipe's model once and print every tensor that a reader of the paper would ask for.",
    "convert": "Turn a checkpoint of the reference implementation into a model folder.",
    "data": "Look into a data set before anything is trained on it (data inspect NAME ROOT).",
}


def main(arguments: list[str] | None = None) -> int:
    """Runs a verb; what a user can mend ends with one sentence and status 2."""
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
        import_module(f"resight.cli.{given[0]}").run(given[1:])
    except ResightError as error:
        print(f"resight: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("resight: stopped; what was written is whole", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader, such as head, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return 0


def _usage() -> str:
    lines = ["Resight: have I seen this one before, and where?\n", "usage: resight VERB [OPTIONS]\n"]
    lines += [f"  {name:10s}{says}" for name, says in VERBS.items()]
    return "\n".join([*lines, "\nresight VERB --help says more."])
