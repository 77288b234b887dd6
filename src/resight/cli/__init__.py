"""The command line: one module for each verb. This module imports none of them, so that help is instant."""

import os
import sys
from importlib import import_module

VERBS = {
    "demo": "Train a small three-modality TransReID on synthetic images, and draw its ranking.",
    "train": "Train a recipe, or resume a run.",
    "lr-find": "Run a learning rate range test on a recipe.",
    "evaluate": "Evaluate a model or a file of embeddings under any protocol: CMC, mAP, mINP, open set.",
    "compare": "Compare two evaluations on the same queries, with confidence intervals.",
    "calibrate": "Fit the probability of the same identity, and a threshold for a false match rate, to a model.",
    "similarity": "Compute the similarity of two images.",
    "extract": "Write the embeddings of many images, or of boxes in a video, into one file; resumable.",
    "gallery": "Store embeddings, search them, assign identities, cluster, and remove records.",
    "export": "Export a model to ONNX, OpenVINO or torch.export, and check it against the original.",
    "summary": "Print the stages of a recipe's model, with shapes, parameters and FLOPs.",
    "convert": "Convert a checkpoint of the reference implementation to a model folder.",
    "data": "Inspect data sets, list the catalog, clean the cache.",
    "recipes": "List the recipes of resight train.",
    "protocols": "List the evaluation protocols.",
}


def main(arguments: list[str] | None = None) -> int:
    """Run a verb, and return the exit status: 2 with a one-sentence message for an error that a user can fix."""
    words = sys.argv[1:] if arguments is None else arguments
    if not words or words[0] in ("-h", "--help"):
        print(_usage())
        return 0
    if words[0] == "--version":
        from resight import __version__

        print(f"resight {__version__}")
        return 0
    from resight.errors import ResightError, unknown

    try:
        if words[0] not in VERBS:
            raise unknown("verb", words[0], VERBS)
        import_module(f"resight.cli.{words[0].replace('-', '_')}").run(words[1:])
    except ResightError as error:
        print(f"resight: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            "resight: interrupted; run the same command again, or resight train --resume RUN, to continue",
            file=sys.stderr,
        )
        return 130
    except BrokenPipeError:  # the reading process, such as head, has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return 0


def _usage() -> str:
    lines = ["Resight: have I seen this one before, and where?\n", "usage: resight VERB [OPTIONS]\n"]
    lines += [f"  {name:12s}{description}" for name, description in VERBS.items()]
    return "\n".join([*lines, "\nresight VERB --help explains a verb; resight --version prints the version."])
