"""What the walkthrough says of the modules of other backbones: hierarchical transformers and convolutional networks.

Their axes have no letters: width and number of positions differ from stage to stage.
"""

from typing import Final

from resight.report.walkthrough.rules import Rule, patches_text

_FIRST: Final = r"backbone\.(?:blocks|(?:stages|layers)\.0\.blocks|(?:stages|layers)\.0)\.0"
_STAGE: Final = (
    "A group of blocks of one resolution; from one to the next the map usually gets smaller and the channels more."
)

NETWORK_RULES: Final = (
    Rule("tokens", r"backbone\.patch_embed", "patches", patches_text),
    Rule("tokens", r"backbone\.patch_norm", "norm of the patches", "Each patch is normalised by itself."),
    Rule("tokens", r"backbone\.(?:stem|conv_stem)", "stem", "The first convolutions turn the pixels into a map with "
         "more channels and fewer positions."),
    Rule("tokens", r"backbone\.conv(\d)", "stem, convolution {}", "A convolution turns the pixels, or the map before "
         "it, into a map with more channels.", counts_from=0),
    Rule("tokens", r"backbone\.bn(\d)", "stem, norm {}", "Each channel is normalised over the batch.", counts_from=0),
    Rule("block", rf"{_FIRST}\.norm1", "norm", "Each position is normalised by itself."),
    Rule("block", rf"{_FIRST}\.attn\.qkv", "q, k, v in one", "One linear map gives every position a query, a key and a "
         "value; where the map is divided into windows, each window is a row and attention stays inside it."),
    Rule("block", rf"{_FIRST}\.attn\.proj", "values, weighted", "Each position takes the weighted mean of the values "
         "that it attends to.", of_input=True),
    Rule("block", rf"{_FIRST}\.attn", "projection", "A linear map mixes the results of the heads."),
    Rule("block", rf"{_FIRST}\.conv_dw", "convolution", "Each channel is filtered by itself, over neighbouring "
         "positions."),
    Rule("block", rf"{_FIRST}\.norm2", "after attention", "The projection is added to what entered the block: the "
         "first residual connection.", of_input=True),
    Rule("block", rf"{_FIRST}\.norm2", "second norm", "Each position is normalised again."),
    Rule("block", rf"{_FIRST}\.norm", "norm", "Each position is normalised by itself."),
    Rule("block", rf"{_FIRST}\.mlp\.(?:act|1)", "MLP, hidden", "Each position gets more channels, and a non-linear "
         "function sets most negative numbers close to 0."),
    Rule("block", rf"{_FIRST}\.mlp", "MLP, out", "And each position gets back to as many channels as before."),
    Rule("block", _FIRST, "block 1", "What the block computed is added to what entered it: this is its output."),
    Rule("network", r"backbone\.(?:stages|layers)\.(\d+)", "stage {}", _STAGE),
    Rule("network", r"backbone\.layer(\d)", "stage {}", _STAGE, counts_from=0),
    Rule("network", r"backbone\.blocks\.(\d+)", "block {}", "The same kind of computation with other weights."),
    Rule("network", r"backbone\.merges\.(\d+)", "merged patches {}", "Each 2 x 2 neighbouring patches become one."),
    Rule("network", r"backbone\.last", "last map", "A last convolution mixes the channels."),
    Rule("network", r"backbone\.(?:map_norm|norm)", "final norm", "Each position of the last map is normalised."),
    Rule("network", r"backbone\.(?:global_pool|pool)", "pooled feature", "The positions of the map become one vector."),
    Rule("network", r"backbone\.attnpool", "second feature", "The mean of the map attends to all positions: CLIP's own "
         "pooling."),
    Rule("network", r"backbone\.fc", "global feature", "A linear map and a norm make the feature."),
)  # fmt: skip
