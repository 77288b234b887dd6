"""Every default and every range of the configuration, and the sentences that refuse other values."""

import json
import math

import pytest
from pydantic import ValidationError

from resight.config.evaluation import Evaluation
from resight.config.run import Run, read_run
from resight.config.section import Section, explain
from resight.config.sections import Model, Preprocessing
from resight.errors import ConfigError

DEFAULTS = {
    "run": {
        "recipe": "custom", "dataset": "market1501", "root": None, "weights": None, "teacher": None, "out": None,
        "seed": 0, "device": "auto", "precision": "auto", "micro_batch_size": None, "gradient_checkpointing": False,
        "fsdp": False, "compile": False, "cache": True, "tensorboard": False, "on_corrupt": "error",
        "validation_fraction": 0, "allow_train_test_overlap": False, "select_on_test": False,
        "evaluate_every": 0, "checkpoint_steps": 0,
    },
    "preprocessing": {
        "size": [256, 128], "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "train_interpolation": "bicubic",
        "test_interpolation": "bilinear", "scaling": {},
    },
    "model": {
        "backbone": "vit_base_patch16_224", "stride": None, "sie": [], "sie_weight": 3, "sie_dropout": 0, "jpm": False,
        "jpm_shift": 5, "jpm_groups": 2, "jpm_parts": 4, "jpm_rearrange": True, "head": "softmax", "head_scale": 30,
        "head_margin": 0.5, "feature": "before", "fusion": None, "separate_backbones": False, "drop_path": 0.1,
        "dropout": 0, "attention_dropout": 0, "pooling": None, "gem_power": 3, "stem": "patch", "sie_tokens": "all",
        "projection": None, "part_tokens": 0, "part_fusion": "concat", "part_necks": True, "last_stride": 1,
        "max_pool": "padded", "semantic_weight": 0.2,
    },
    "augmentation": {
        "flip": 0.5, "pad": 10, "erase": 0.5, "jitter": 0, "grey": 0, "grey_patch": 0, "tone": 0, "autoaugment": 0,
        "augmix": 0, "share_draws": True, "misregistration": 0, "drop_modality": 0, "drop_by_modality": {},
    },
    "sampling": {"identities": 16, "instances": 4},
    "loss": {
        "id_weight": 1, "label_smoothing": 0, "triplet_weight": 1, "triplet_margin": None, "triplet_normalize": False,
        "triplet_within": "batch", "center_weight": 0, "center_lr": 0.5, "fused_weight": 1,
        "cross_modal_weight": 0, "cross_modal_temperature": 0.1,
    },
    "distillation": {"embedding_weight": 10, "distance_weight": 10, "similarity_weight": 0},
    "optimizer": {
        "name": "sgd", "lr": 0.008, "momentum": 0.9, "betas": [0.9, 0.999], "weight_decay": 1e-4,
        "bias_weight_decay": 1e-4, "decay_vectors": True, "bias_lr_factor": 2, "head_lr_factor": 1,
        "classifier_lr_factor": 1, "layer_decay": 1, "ema": 0, "freeze_epochs": 0, "clip": None,
    },
    "schedule": {
        "name": "cosine", "every": "epoch", "epochs": 120, "warmup_epochs": 5, "warmup_start": 0.01, "floor": 0.002,
        "milestones": [40, 70], "gamma": 0.1,
    },
    "embedding": {
        "precision": "auto", "flip": False, "fusion": "auto", "unknown": "mean", "scaling": {}, "batch_size": None,
    },
    "folder": {"camera": None, "filename_pattern": None, "modalities": [], "allow_missing_modalities": False},
    "evaluation": {
        "protocol": None, "junk": None, "window": 3600, "trials": None, "multi_query": "off", "tracklets": "off",
        "rerank": False, "k1": 20, "k2": 6, "rerank_weight": 0.3, "expand_query": 0, "expand_gallery": 0,
        "expand_power": 3,
    },
}  # fmt: skip

WHOLE = {  # the least whole number, and the greatest
    "seed": (0, 2**63 - 1), "micro_batch_size": (1, None), "evaluate_every": (0, None), "checkpoint_steps": (0, None),
    "model.stride": (1, None), "model.jpm_shift": (0, None), "model.jpm_groups": (1, None),
    "model.jpm_parts": (1, None), "augmentation.pad": (0, None), "sampling.identities": (2, None),
    "sampling.instances": (2, None), "optimizer.freeze_epochs": (0, None), "schedule.epochs": (1, None),
    "schedule.warmup_epochs": (0, None), "embedding.batch_size": (1, None), "evaluation.trials": (1, None),
    "evaluation.k1": (1, None), "evaluation.k2": (1, None), "evaluation.expand_query": (0, None),
    "evaluation.expand_gallery": (0, None), "augmentation.misregistration": (0, None),
    "model.part_tokens": (0, 16), "model.projection": (1, 16_384),
}  # fmt: skip
REAL = {  # intervals; a round bracket leaves the bound out
    "[0, 1]": "augmentation.flip augmentation.erase augmentation.grey augmentation.grey_patch augmentation.autoaugment "
    "augmentation.augmix augmentation.tone augmentation.drop_modality model.semantic_weight "
    "schedule.warmup_start schedule.floor evaluation.rerank_weight",
    "[0, 1)": "validation_fraction model.sie_dropout model.drop_path model.dropout model.attention_dropout "
    "augmentation.jitter loss.label_smoothing optimizer.momentum optimizer.ema",
    "(0, 100]": "model.gem_power",
    "(0, 1]": "optimizer.layer_decay schedule.gamma",
    "[0, inf)": "model.head_margin loss.id_weight loss.triplet_weight loss.center_weight loss.fused_weight "
    "loss.cross_modal_weight optimizer.weight_decay optimizer.bias_weight_decay evaluation.window "
    "evaluation.expand_power distillation.embedding_weight distillation.distance_weight distillation.similarity_weight",
    "(0, inf)": "model.head_scale loss.cross_modal_temperature loss.center_lr optimizer.lr optimizer.bias_lr_factor "
    "optimizer.head_lr_factor optimizer.classifier_lr_factor optimizer.clip",
    "(-inf, inf)": "model.sie_weight loss.triplet_margin",
}
INTERVALS = [(field, interval) for interval, fields in REAL.items() for field in fields.split()]


def with_value(field, value):
    """A run whose `field`, such as `model.stride`, has another value."""
    section, _, name = field.rpartition(".")
    if not section:
        return Run().changed(**{name: value})
    run = Run(teacher="teacher") if section == "distillation" else Run()
    return run.changed(**{section: getattr(run, section).model_dump() | {name: value}})


def accepts(field, value):
    try:
        with_value(field, value)
    except ConfigError as error:
        if field.split(".")[-1] not in str(error):
            raise
        return False
    return True


def test_defaults():
    document = json.loads(Run().model_dump_json())
    sections = {name: document.pop(name) for name in DEFAULTS if name != "run"}
    assert {"run": document, **sections} == DEFAULTS
    assert Run.model_validate_json(Run().model_dump_json()) == Run()


def test_every_field_with_a_range_is_in_these_tables():
    limited = set()
    for part, section in (("", Run()), *((f"{name}.", getattr(Run(), name)) for name in DEFAULTS if name != "run")):
        limited |= {part + name for name, field in type(section).model_fields.items() if field.metadata}
    limited.remove("folder")  # its metadata is for the command line
    assert limited == set(WHOLE) | {field for field, interval in INTERVALS if interval != "(-inf, inf)"}


@pytest.mark.parametrize("value", [(0.9,), (0.9, 1.0), (-0.1, 0.9), (1.0, 0.9), (0.9, 0.99, 0.999), ("nan", 0.9)])
def test_betas_are_two_numbers_from_0_to_1(value):
    assert accepts("optimizer.betas", (0.0, 0.5))
    assert not accepts("optimizer.betas", value)


@pytest.mark.parametrize("field", WHOLE)
def test_the_range_of_a_whole_number(field):
    least, greatest = WHOLE[field]
    assert accepts(field, least)
    assert not accepts(field, least - 1)
    assert accepts(field, greatest or 10**6)
    assert greatest is None or not accepts(field, greatest + 1)
    assert not accepts(field, least + 0.5)


@pytest.mark.parametrize(("field", "interval"), INTERVALS)
def test_the_range_of_a_real_number(field, interval):
    low, high = map(float, interval[1:-1].split(","))
    beyond_low = -1e-9 if low == 0 else -math.inf
    assert accepts(field, low) == (interval[0] == "[")
    assert accepts(field, high) == (interval[-1] == "]")
    assert not accepts(field, beyond_low)
    assert not accepts(field, math.nextafter(high, math.inf))
    assert accepts(field, 1e-9)
    assert accepts(field, 1 - 1e-9)
    assert not accepts(field, math.nan)
    if low == -math.inf:
        assert accepts(field, -0.5)


def test_the_size_of_an_image_and_its_standard_deviation():
    assert Preprocessing(size=(1, 4096)).size == (1, 4096)
    for size in ((0, 1), (1, 0), (4097, 1), (1, 4097)):
        with pytest.raises(ConfigError, match=r"size\.[01]: Input should be (gr|l)"):
            Preprocessing().changed(size=size)
    with pytest.raises(ConfigError, match=r"std\.1: Input should be greater than 0, not 0\.0"):
        Preprocessing().changed(std=(1, 0.0, 1))
    assert Preprocessing(std=(1e-9, 1e-9, 1e-9), mean=(-1, 0, 2)).mean == (-1, 0, 2)


@pytest.mark.parametrize(
    ("changes", "refused"),
    [
        ({"validation_fraction": 0.1, "select_on_test": True}, "use one"),
        ({"validation_fraction": 0.1}, None),
        ({"select_on_test": True}, None),
        ({"loss": {"id_weight": 0, "triplet_weight": 0}}, "nothing would be learned"),
        ({"loss": {"id_weight": 0}}, None),
        ({"loss": {"triplet_weight": 0}}, None),
        ({"loss": {"id_weight": 1, "triplet_weight": 1}}, None),
    ],
)
def test_fields_that_exclude_each_other(changes, refused):
    if refused is None:
        Run().changed(**changes)
    else:
        with pytest.raises(ConfigError, match=f"^the configuration: .*{refused}$"):
            Run().changed(**changes)


def problems(count):
    """A section refuses this many fields."""
    return {f"x{n}": n for n in range(count)}


@pytest.mark.parametrize(("count", "more"), [(1, ""), (5, ""), (6, "; and 1 more"), (9, "; and 4 more")])
def test_at_most_five_problems_are_listed(count, more):
    with pytest.raises(ConfigError) as refused:
        Model().changed(**problems(count))
    listed = "; ".join(f"x{n}: Extra inputs are not permitted, not {n}" for n in range(min(count, 5)))
    assert str(refused.value) == listed + more


def test_a_refused_value_is_named_where_it_is_short():
    for value, text in (
        ("n" * 58, f", not '{'n' * 58}'"), ("n" * 59, ""), (1.5, ", not 1.5"), (True, ", not True"), (None, ""),
        ([1], ""),
    ):  # fmt: skip
        with pytest.raises(ConfigError) as refused:
            Evaluation().changed(multi_query=value)
        assert str(refused.value) == f"multi_query: Input should be 'off', 'mean' or 'max'{text}"
    with pytest.raises(ConfigError) as refused:
        Model().changed(**{"n" * 101: 1})
    assert str(refused.value) == f"{'n' * 100}: Extra inputs are not permitted, not 1"


class Named(Section):
    name: str


def test_a_missing_field_has_no_value():
    with pytest.raises(ValidationError) as refused:
        Named.model_validate({})
    assert str(explain(refused.value)) == "name: Field required"
    assert Named(name="a").changed(name="b").name == "b"


def test_a_configuration_file_is_read(tmp_path):
    file = tmp_path / "run.json"
    file.write_text('{"seed": -1}')
    with pytest.raises(ConfigError) as refused:
        read_run(file)
    says = f"{file} is not a run's configuration: seed: Input should be greater than or equal to 0, not -1"
    assert str(refused.value) == says
    file.write_text(Run(seed=3).model_dump_json())
    assert read_run(file) == Run(seed=3)
    with pytest.raises(ConfigError, match="cannot be read: No such file or directory"):
        read_run(tmp_path / "none.json")
