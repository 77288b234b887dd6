"""What the walkthrough says of each module of a plain vision transformer, of JPM, fusion, BNNecks and heads.

A rule names a module by a pattern over its name, without the parts `nets.0.` (the first of several backbones) and
`net.` (a network of timm). Shapes are never stated here: they are measured.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

Part = Literal["tokens", "block", "network", "parts", "fusion", "heads"]


@dataclass(frozen=True)
class Rule:
    """How the output (or the input) of a module is presented."""

    part: Part
    pattern: str
    name: str
    """The step's name; `{}` stands for the number in the module's name, counted from 1, or a range of numbers."""
    text: str | Callable[[Any], str]
    """One sentence, or a function of the module."""
    axes: tuple[str, ...] = ()
    of_input: bool = False
    """Whether the input of the module is shown."""
    counts_from: int = 1
    """The number of the first of several modules."""
    source: str = ""
    """The code that computes it, where that is not the module's `forward`."""


_FIRST: Final = r"backbone\.blocks\.0"
_WEIGHTS: Final = ("R", "h", "T", "T")
_ATTENTION: Final = "models/blocks.py Attention.forward"


def patches_text(module: Any) -> str:
    """Say how an image is divided into patches."""
    projection = getattr(module, "proj", None)
    if projection is None or not hasattr(projection, "kernel_size"):
        return "The image is divided into patches, and each patch becomes one vector of D numbers."
    size, step = projection.kernel_size[0], projection.stride[0]
    return (
        f"The image is divided into patches of {size} x {size} pixels, one every {step} pixels, and one linear map "
        "turns the pixels of each patch into a vector of D numbers."
    )


def _side_info(module: Any) -> str:
    kinds = " and ".join(f"{kind} ({count})" for kind, count in module.counts.items())
    return (
        f"Each image gets the row of the table that belongs to its {kinds}, times {module.weight:g}; its axis of "
        "tokens has length 1, so the same vector is added to every token of the image."
    )


def _hidden(module: Any) -> str:
    return f"A linear map makes every token wider, and {type(module).__name__} sets most negative numbers close to 0."


def _parts(module: Any) -> str:
    return (
        "The patches that enter the last block are shifted and shuffled, divided into J groups, and each group gets a "
        "copy of the class token; the groups of all images pass the shared block as one batch of J R."
    )


_TOKENS: Final = (
    Rule("tokens", r"backbone\.patch_embed", "patches", patches_text, ("R", "N", "D")),
    Rule("tokens", r"backbone\.sie", "side information", _side_info, ("R", "1", "D")),
    Rule(
        "tokens", r"backbone\.norm_pre", "tokens",
        "Class token and patches are joined to one sequence, and position and side information are added: this enters "
        "the first block.",
        ("R", "T", "D"), source="backbones/vit.py ViT.tokens",
    ),
)  # fmt: skip
_BLOCK: Final = (
    Rule("block", rf"{_FIRST}\.norm1", "norm", "Each token is normalised by itself to mean 0 and variance 1, then "
         "scaled and shifted by learned numbers.", ("R", "T", "D")),
    Rule("block", rf"{_FIRST}\.attn\.qkv", "q, k, v in one", "One linear map gives every token a query (what it "
         "looks for), a key (what it offers) and a value (what it passes on), side by side.", ("R", "T", "3 D")),
    Rule("block", rf"{_FIRST}\.attn\.split", "q, k, v by head", "The three are separated and divided among the h "
         "heads, each of which works with d numbers.", ("3", "R", "h", "T", "d")),
    Rule("block", rf"{_FIRST}\.attn\.weights", "attention", "Every query is compared with every key; softmax over the "
         "last axis turns each row into weights that sum to 1.", _WEIGHTS),
    Rule("block", rf"{_FIRST}\.attn\.proj", "values, weighted", "Each token takes the weighted mean of all values, and "
         "the heads are joined again.", ("R", "T", "D"), of_input=True, source=_ATTENTION),
    Rule("block", rf"{_FIRST}\.attn", "projection", "A linear map mixes the results of the heads.", ("R", "T", "D")),
    Rule("block", rf"{_FIRST}\.norm2", "after attention", "The projection is added to what entered the block: the "
         "first residual connection.", ("R", "T", "D"), of_input=True, source="models/blocks.py Block.steps"),
    Rule("block", rf"{_FIRST}\.norm2", "second norm", "Each token is normalised again.", ("R", "T", "D")),
    Rule("block", rf"{_FIRST}\.mlp\.act", "MLP, hidden", _hidden, ("R", "T", "F")),
    Rule("block", rf"{_FIRST}\.mlp\.fc2", "MLP, out", "A second linear map brings every token back to D numbers.",
         ("R", "T", "D")),
    Rule("block", rf"{_FIRST}", "block 1", "The MLP is added to what entered it, the second residual connection: this "
         "is the output of block 1.", ("R", "T", "D")),
)  # fmt: skip
_NETWORK: Final = (
    Rule("network", r"backbone\.blocks\.(\d+)", "block {}", "The same computation with other weights; where only the "
         "class token is used afterwards, the last block computes it alone.", ("R", "", "D")),
    Rule("network", r"backbone\.norm", "final norm", "The class token of the last block is normalised: this is the "
         "global feature, which has seen all patches through attention.", ("R", "", "D")),
)  # fmt: skip
_PARTS: Final = (
    Rule("parts", r"backbone\.jpm\.block", "groups of patches", _parts, ("J R", "L", "D"), of_input=True,
         source="models/jpm.py JPM.forward"),
    Rule("parts", r"backbone\.jpm\.block\.attn\.weights", "attention of the class tokens", "Only the class token of "
         "each group sends a query to the L tokens of its group.", ("J R", "h", "1", "L")),
    Rule("parts", r"backbone\.jpm\.block", "class tokens of the groups", "The shared copy of the last block leaves one "
         "token of each group.", ("J R", "1", "D")),
    Rule("parts", r"backbone\.jpm\.norm", "local features", "A shared norm makes them the J local features of each "
         "image.", ("J R", "1", "D")),
)  # fmt: skip
_FUSION: Final = (
    Rule("fusion", r"fusion\.attention\.query", "queries of the class tokens", "The feature of each image gives a "
         "query: what to look for in the other modalities of the sighting.", ("R", "A")),
    Rule("fusion", r"fusion\.attention\.key_value", "keys and values of all tokens", "Every token of every image "
         "offers a key and a value, computed once from what enters the last block.", ("R", "T", "2 A")),
    Rule("fusion", r"fusion\.attention\.out", "read from the others", "Each modality takes a weighted mean of the "
         "values of the other modalities; what is absent is masked, so it has no weight.", ("B", "M", "D")),
    Rule("fusion", r"fusion\.attention", "learned from the others", "After an MLP this is added to the feature of each "
         "modality; it is 0 where no other modality is present.", ("B", "M", "D")),
    Rule("fusion", r"fusion\.gate", "gate", "A small network gives each image a number that says how much its modality "
         "should count.", ("B", "M")),
    Rule("fusion", r"fusion", "fused feature", "The features of a sighting become one: a vector of the same width "
         "whichever modalities are present (with `concat`, M times as wide).", ("B", "D")),
)  # fmt: skip
_HEADS: Final = (
    Rule("heads", r"necks\.(\d+)", "feature {}", "What the triplet loss compares; 0 is the global feature, then "
         "come those of the parts, if any. In a fusion, the images' features after the attention are further rows.",
         ("S", "D"), of_input=True, counts_from=0, source="training/step.py _loss"),
    Rule("heads", r"necks\.(\d+)", "BNNeck {}", "Every number of the feature is normalised over the batch, because the "
         "two losses want features of different kinds; in a fusion, over the images of one modality.", ("S", "D"),
         counts_from=0),
    Rule("heads", r"heads\.(\d+)", "logits {}", "In training alone, a linear map gives one number for each of the C "
         "identities; evaluation does not use it.", ("R", "C"), counts_from=0),
    Rule("heads", r"fused_heads\.(\d+)", "logits {} of the sightings", "The wider fused features have a classifier of "
         "their own.", ("B", "C"), counts_from=0),
)  # fmt: skip
VIT_RULES: Final = (*_TOKENS, *_BLOCK, *_NETWORK, *_PARTS)
COMMON_RULES: Final = (*_FUSION, *_HEADS)


def plain_name(name: str) -> str:
    """Return a module name without the parts around a network: `backbone.net.blocks.0` becomes `backbone.blocks.0`."""
    return re.sub(r"^backbone\.(?:nets\.0\.)?(?:net\.)?", "backbone.", name)
