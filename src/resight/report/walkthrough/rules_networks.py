"""What the walkthrough says of the modules of other backbones: hierarchical transformers and convolutional networks."""

from typing import Final

from resight.report.walkthrough.rules import Rule

_STAGE = "A group of blocks of one resolution; from one to the next the map usually gets smaller and the channels more."

NETWORK_RULES: Final = (
    Rule("tokens", r"backbone\.(?:stem|conv_stem|bn3|conv1)", "stem", "The first convolutions turn the pixels into a "
         "map with more channels and fewer positions."),
    Rule("network", r"backbone\.(?:stages|layers)\.(\d+)", "stage {}", _STAGE),
    Rule("network", r"backbone\.layer(\d)", "stage {}", _STAGE, counts_from=0),
    Rule("network", r"backbone\.merges\.(\d+)", "merged patches {}", "Each 2 x 2 neighbouring patches become one."),
    Rule("network", r"backbone\.last", "last map", "A last convolution mixes the channels."),
    Rule("network", r"backbone\.map_norm", "last map", "The map of the last stage is normalised."),
    Rule("network", r"backbone\.(?:global_pool|pool)", "pooled feature", "The positions of the map become one vector."),
    Rule("network", r"backbone\.attnpool", "second feature", "The mean of the map attends to all positions: CLIP's own "
         "pooling."),
    Rule("network", r"backbone\.fc", "global feature", "A linear map and a norm make the feature."),
    Rule("network", r"backbone\.projection", "projected feature", "A linear map makes CLIP's second feature."),
)  # fmt: skip
