"""The options of the reference's configuration: their names, and the values that they take."""

import ast
import difflib
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from resight.config.yaml_text import parse_yaml
from resight.errors import ConfigError
from resight.models.backbones.plain import LEGACY_SMALL
from resight.models.backbones.resnet import RESNET

BACKBONES: Final = {
    "vit_base_patch16_224_TransReID": "vit_base_patch16_224",
    "deit_base_patch16_224_TransReID": "deit_base_patch16_224",
    "vit_small_patch16_224_TransReID": LEGACY_SMALL,
    "deit_small_patch16_224_TransReID": "deit_small_patch16_224",
}
HEADS: Final = {
    "softmax": "softmax",
    "arcface": "arcface",
    "cosface": "cosface",
    "amsoftmax": "am-softmax",
    "circle": "circle",
}
_MAX_FILE: Final = 64 * 1024  # bytes; those of the reference have 2,000
_MAX_VALUE: Final = 1_000  # characters


@dataclass(frozen=True)
class _Kind:
    takes: str
    """What the option takes, for error messages."""
    accepts: Callable[[Any], bool]


def _choice(*values: Any) -> _Kind:
    def accepts(value: Any) -> bool:
        return any(type(value) is type(known) and value == known for known in values)

    return _Kind("one of " + ", ".join(map(str, values)), accepts)


def _integer(low: int, high: int) -> _Kind:
    return _Kind(f"an integer from {low} to {high}", lambda value: type(value) is int and low <= value <= high)


def _number(low: float, high: float) -> _Kind:
    def accepts(value: Any) -> bool:
        return type(value) in (int, float) and low <= value <= high  # NaN is in no range

    return _Kind(f"a number from {low:g} to {high:g}", accepts)


def _several(count: int, kind: _Kind, example: str) -> _Kind:
    def accepts(value: Any) -> bool:
        return (
            isinstance(value, tuple) and len(cast("tuple[Any, ...]", value)) == count and all(map(kind.accepts, value))
        )

    return _Kind(f"{count} values, each {kind.takes}, such as {example}", accepts)


def _is_plain(value: Any) -> bool:
    values = cast("tuple[Any, ...]", value) if isinstance(value, tuple) else (value,)
    return all(item is None or isinstance(item, str | int | float) for item in values)


_FLAG: Final = _Kind("True or False", lambda value: isinstance(value, bool))
_ANY: Final = _Kind("text or a number", _is_plain)
_SIZE: Final = _several(2, _integer(1, 4096), "[256, 128]")
_RATE: Final = _number(0, 0.99)

_USED: Final[Mapping[str, _Kind]] = {
    "MODEL.NAME": _choice("transformer", RESNET),
    "MODEL.TRANSFORMER_TYPE": _choice(*BACKBONES, None),
    "MODEL.STRIDE_SIZE": _several(2, _integer(1, 64), "[16, 16]"),
    "MODEL.LAST_STRIDE": _choice(1),
    "MODEL.NECK": _choice("bnneck"),
    "MODEL.COS_LAYER": _choice(False),
    "MODEL.ID_LOSS_TYPE": _choice(*HEADS),
    "MODEL.SIE_CAMERA": _FLAG,
    "MODEL.SIE_VIEW": _FLAG,
    "MODEL.SIE_COE": _number(0, 1000),
    "MODEL.JPM": _FLAG,
    "MODEL.SHIFT_NUM": _integer(0, 4096),
    "MODEL.SHUFFLE_GROUP": _integer(1, 4096),
    "MODEL.DEVIDE_LENGTH": _integer(1, 64),
    "MODEL.RE_ARRANGE": _FLAG,
    "MODEL.DROP_PATH": _RATE,
    "MODEL.DROP_OUT": _RATE,
    "MODEL.ATT_DROP_RATE": _RATE,
    "INPUT.SIZE_TRAIN": _SIZE,
    "INPUT.SIZE_TEST": _SIZE,
    "INPUT.PIXEL_MEAN": _several(3, _number(0, 1), "[0.5, 0.5, 0.5]"),
    "INPUT.PIXEL_STD": _several(3, _number(0.001, 1), "[0.5, 0.5, 0.5]"),
    "SOLVER.COSINE_SCALE": _number(0.001, 10_000),
    "SOLVER.COSINE_MARGIN": _number(0, 10),
    "TEST.NECK_FEAT": _choice("before", "after"),
    "TEST.FEAT_NORM": _choice("yes", "no"),  # the reference normalises embeddings with both
    "DATASETS.NAMES": _ANY,
}
_TRAINING: Final[Mapping[str, _Kind]] = {
    **dict.fromkeys(("MODEL.DIST_TRAIN", "MODEL.NO_MARGIN", "SOLVER.LARGE_FC_LR", "DEBUG"), _FLAG),
    **dict.fromkeys(("TEST.RE_RANKING", "TEST.EVAL"), _FLAG),
    **dict.fromkeys(
        (
            *(f"MODEL.{name}" for name in ("ID_LOSS_WEIGHT", "TRIPLET_LOSS_WEIGHT")),
            *(f"INPUT.{name}" for name in ("PROB", "RE_PROB", "PADDING")),
            *(f"SOLVER.{name}" for name in ("MAX_EPOCHS", "BASE_LR", "BIAS_LR_FACTOR", "SEED", "MOMENTUM", "MARGIN")),
            *(f"SOLVER.{name}" for name in ("CENTER_LR", "CENTER_LOSS_WEIGHT", "WEIGHT_DECAY", "WEIGHT_DECAY_BIAS")),
            *(f"SOLVER.{name}" for name in ("GAMMA", "WARMUP_FACTOR", "WARMUP_EPOCHS", "CHECKPOINT_PERIOD")),
            *(f"SOLVER.{name}" for name in ("LOG_PERIOD", "EVAL_PERIOD", "IMS_PER_BATCH")),
            *("DATALOADER.NUM_WORKERS", "DATALOADER.NUM_INSTANCE", "TEST.IMS_PER_BATCH"),
        ),
        _number(0, 1e9),
    ),
    **dict.fromkeys(
        (
            *(f"MODEL.{name}" for name in ("DEVICE", "DEVICE_ID", "PRETRAIN_PATH", "PRETRAIN_CHOICE")),
            *(f"MODEL.{name}" for name in ("IF_WITH_CENTER", "IF_LABELSMOOTH", "METRIC_LOSS_TYPE")),
            *("DATASETS.ROOT_DIR", "DATALOADER.SAMPLER", "SOLVER.OPTIMIZER_NAME", "SOLVER.STEPS"),
            *("SOLVER.WARMUP_METHOD", "TEST.WEIGHT", "TEST.DIST_MAT", "OUTPUT_DIR"),
        ),
        _ANY,
    ),
}
_KNOWN: Final = {**_USED, **_TRAINING}


def read_options(path: Path) -> dict[str, Any]:
    """Read a YAML configuration of the reference, flattened to names such as `MODEL.JPM`; values are not checked yet.

    Raises:
        ConfigError: the file does not exist, or is no such configuration.
    """
    try:
        if not path.is_file():
            raise ConfigError(f"the configuration {path} cannot be read: there is no such file")
        size = path.stat().st_size
        if size > _MAX_FILE:
            raise ConfigError(f"{path} has {size:,} bytes, more than any configuration of the reference")
        text = path.read_text("utf-8")
    except OSError as error:
        raise ConfigError(f"the configuration {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} cannot be read as YAML: it is no UTF-8 text") from error
    tree = parse_yaml(text, str(path))
    if not isinstance(tree, dict) or not any(isinstance(values, dict) for values in cast(Any, tree).values()):
        raise ConfigError(f"{path} is not the reference's YAML: it has no sections such as MODEL and INPUT")
    options: dict[str, Any] = {}
    for section, values in cast("dict[Any, Any]", tree).items():
        for name, value in cast("dict[Any, Any]", values).items() if isinstance(values, dict) else [("", values)]:
            full_name = f"{section}.{name}" if name else str(section)
            if full_name in options:
                raise ConfigError(f"{path} has {full_name[:100]} twice")
            options[full_name] = value
    return options


def parse_options(settings: Sequence[str]) -> dict[str, Any]:
    """Parse options of the command line, each `NAME=VALUE`; the values are not checked yet.

    Raises:
        ConfigError: one is not of that form, or is given twice.
    """
    options: dict[str, Any] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals:
            raise ConfigError(f"the option {setting[:100]!r} is not of the form NAME=VALUE, such as MODEL.JPM=True")
        if len(value) > _MAX_VALUE:
            raise ConfigError(f"the option {name[:100]} has a value of more than {_MAX_VALUE:,} characters")
        if name in options:
            raise ConfigError(f"the option {name[:100]} is given twice")
        options[name] = parse_yaml(value, f"the option {name[:100]}")
    return options


def check_options(options: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Check the names and values of options.

    Returns:
        the options that a model depends on, and the names of the others, which training alone depends on.

    Raises:
        ConfigError: a name is unknown, with the nearest known one; or a value is invalid, with what the option takes.
    """
    unknown_names = [name for name in options if name not in _KNOWN]
    if unknown_names:
        listed = ", ".join(f"{name[:100]} (the nearest is {_nearest(name)})" for name in unknown_names[:3])
        more = f" and {len(unknown_names) - 3} more" if len(unknown_names) > 3 else ""
        raise ConfigError(f"the reference has no option named {listed}{more}; remove it or correct its name")
    values = {name: _decode(value) for name, value in options.items()}
    for name, value in values.items():
        kind = _KNOWN[name]
        if not kind.accepts(value):
            relation = (
                f"is not {kind.takes}" if kind.takes.startswith("one of") else f"is invalid: it takes {kind.takes}"
            )
            raise ConfigError(f"{name} {_text_of(value)} {relation}")
    used = {name: value for name, value in values.items() if name in _USED}
    return used, [name for name in values if name in _TRAINING]


def _nearest(name: str) -> str:
    upper = {known.upper(): known for known in _KNOWN}
    return upper[difflib.get_close_matches(name[:100].upper(), upper, 1, 0.0)[0]]


def _decode(value: Any, depth: int = 0) -> Any:
    """Evaluate the Python literals that yacs writes as text, such as `(256, 128)` and `1e-4`; lists become tuples."""
    if isinstance(value, str) and len(value) <= _MAX_VALUE:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                value = ast.literal_eval(value.strip())
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            return value
    if isinstance(value, list | tuple) and depth < 2:
        return tuple(_decode(item, depth + 1) for item in cast("list[Any]", value))
    return value


def _text_of(value: Any) -> str:
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of more than 4,300 digits
        return "with a value that is too large"
    return text if len(text) <= 60 else f"{text[:60]}..."
