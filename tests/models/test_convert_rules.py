"""The converter's rules, one by one: options to settings, rows of SIE to labels, and names to names."""

from pathlib import Path

import pytest
import torch

from resight.config.sections import Model
from resight.errors import CheckpointError, ConfigError
from resight.models.convert.reference import _count_patches, _rename
from resight.models.convert.settings import dataset_of, sections_of
from resight.models.convert.side_info import count_labels, name_labels
from resight.models.transreid import TransReID


def test_without_options_settings_are_those_of_the_transformer_recipes():
    model, images = sections_of({}, False)
    assert model == Model(backbone="vit_base_patch16_224", sie=(), sie_weight=3.0, jpm=False, drop_path=0.1)
    assert (model.stride, model.jpm_shift, model.jpm_groups, model.jpm_parts) == (None, 5, 2, 4)
    assert model.jpm_rearrange is True
    assert (model.head, model.head_scale, model.head_margin, model.feature) == ("softmax", 30.0, 0.5, "before")
    assert (model.dropout, model.attention_dropout) == (0.0, 0.0)
    assert (images.size, images.mean, images.std) == ((256, 128), (0.5,) * 3, (0.5,) * 3)


def test_every_option_has_its_setting():
    options = {
        "MODEL.TRANSFORMER_TYPE": "vit_small_patch16_224_TransReID", "MODEL.STRIDE_SIZE": (11, 11),
        "MODEL.SIE_CAMERA": True, "MODEL.SIE_VIEW": True, "MODEL.SIE_COE": 1.5, "MODEL.JPM": True,
        "MODEL.SHIFT_NUM": 8, "MODEL.SHUFFLE_GROUP": 3, "MODEL.DEVIDE_LENGTH": 6, "MODEL.RE_ARRANGE": False,
        "MODEL.ID_LOSS_TYPE": "amsoftmax", "SOLVER.COSINE_SCALE": 16.0, "SOLVER.COSINE_MARGIN": 0.3,
        "TEST.NECK_FEAT": "after", "MODEL.DROP_PATH": 0.2, "MODEL.DROP_OUT": 0.3, "MODEL.ATT_DROP_RATE": 0.4,
        "INPUT.SIZE_TRAIN": (384, 128), "INPUT.PIXEL_MEAN": (0.1, 0.2, 0.3), "INPUT.PIXEL_STD": (0.4, 0.5, 0.6),
    }  # fmt: skip
    model, images = sections_of(options, False)
    assert model.model_dump() == Model(
        backbone="legacy_vit_small", stride=11, sie=("camera", "view"), sie_weight=1.5, jpm=True, jpm_shift=8,
        jpm_groups=3, jpm_parts=6, jpm_rearrange=False, head="am-softmax", head_scale=16.0, head_margin=0.3,
        feature="after", drop_path=0.2, dropout=0.3, attention_dropout=0.4,
    ).model_dump()  # fmt: skip
    assert (images.size, images.mean, images.std) == ((384, 128), (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert sections_of(options, True)[0].sie == ("camera", "modality")


def test_a_resnet_has_no_stride_and_needs_no_type():
    options = {"MODEL.NAME": "resnet50", "MODEL.TRANSFORMER_TYPE": None, "MODEL.STRIDE_SIZE": (12, 12)}
    model, _ = sections_of(options, False)
    assert (model.backbone, model.stride) == ("resnet50", None)
    with pytest.raises(ConfigError, match="TRANSFORMER_TYPE is None"):
        sections_of(options | {"MODEL.NAME": "transformer"}, False)
    with pytest.raises(ConfigError, match="must be the same in both directions"):
        sections_of({"MODEL.STRIDE_SIZE": (12, 16)}, False)
    with pytest.raises(ConfigError, match="a model has one size"):
        sections_of({"INPUT.SIZE_TEST": (256, 127)}, False)
    assert sections_of({"INPUT.SIZE_TEST": (256, 128)}, False)[1].size == (256, 128)
    with pytest.raises(ConfigError, match=r"needs MODEL\.SIE_VIEW=True"):
        sections_of({}, True)


@pytest.mark.parametrize(("stride", "expected"), [((16, 16), None), ((12, 12), 12), ((17, 17), 17)])
def test_a_stride_of_16_is_the_patch_size(stride, expected):
    assert sections_of({"MODEL.STRIDE_SIZE": stride}, False)[0].stride == expected


@pytest.mark.parametrize(("name", "expected"), [
    ("market1501", "market1501"), ("('veri')", "veri776"), ('("occ_duke")', "dukemtmc"), ("('msmt17',)", "msmt17"),
    ("cuhk", None), (None, None),
])  # fmt: skip
def test_names_of_data_sets(name, expected):
    assert dataset_of({} if name is None else {"DATASETS.NAMES": name}) == expected


def table(rows):
    return {} if rows is None else {"base.sie_embed": torch.zeros(rows, 1, 2)}


@pytest.mark.parametrize(
    ("classes", "first", "last"), [(1, "0", "0"), (10, "0", "9"), (11, "00", "10"), (101, "000", "100")]
)
def test_identities_are_numbers_of_one_length(classes, first, last):
    known = name_labels(classes, {}, None)
    assert (len(known.identities), known.identities[0], known.identities[-1]) == (classes, first, last)
    assert (known.cameras, known.views, known.modalities) == ((), (), ("rgb",))


def test_labels_are_named_after_their_set():
    for owner, cameras, views in (
        (None, ("1", "2"), ("1", "2", "3")),
        ("x", ("x:1", "x:2"), ("x:1", "x:2", "x:3")),
        ("veri776", ("veri776:001", "veri776:002"), ("veri776:0", "veri776:1", "veri776:2")),
    ):
        known = name_labels(4, {"camera": 2, "view": 3}, owner)
        assert (known.cameras, known.views) == (cameras, views)
    assert name_labels(4, {"modality": 2}, "x").modalities == ("rgb", "nir")


@pytest.mark.parametrize(("rows", "kinds", "cameras", "views", "expected"), [
    (3, ("camera",), None, None, {"camera": 3}), (3, ("camera",), 3, None, {"camera": 3}),
    (3, ("view",), None, 3, {"view": 3}), (3, ("modality",), None, None, {"modality": 3}),
    (12, ("camera", "view"), 6, None, {"camera": 6, "view": 2}),
    (12, ("camera", "view"), None, 3, {"camera": 4, "view": 3}),
    (12, ("camera", "view"), 3, 4, {"camera": 3, "view": 4}),
    (6, ("camera", "modality"), 2, None, {"camera": 2, "modality": 3}),
    (None, (), None, None, {}), (None, ("camera",), 1, None, {}), (None, ("camera", "view"), 1, 1, {}),
])  # fmt: skip
def test_rows_of_side_information_are_labels(rows, kinds, cameras, views, expected):
    assert count_labels(table(rows), kinds, cameras, views) == expected


@pytest.mark.parametrize(("rows", "kinds", "cameras", "views", "error"), [
    (3, ("camera",), 4, None, ConfigError), (3, ("camera",), None, 3, ConfigError),
    (3, ("view",), 3, None, ConfigError), (3, ("camera",), 0, None, ConfigError),
    (3, (), None, None, CheckpointError), (1, ("camera",), None, None, CheckpointError),
    (None, ("camera",), None, None, CheckpointError), (None, ("camera",), 2, None, CheckpointError),
    (4, ("modality",), None, None, ConfigError), (8, ("camera", "modality"), 2, None, ConfigError),
    *((12, ("camera", "view"), *stated, ConfigError) for stated in (
        (None, None), (5, None), (12, None), (1, None), (None, 5), (None, 1), (3, 99), (3, 5),
    )),
])  # fmt: skip
def test_side_information_that_does_not_fit_is_refused(rows, kinds, cameras, views, error):
    with pytest.raises(error):
        count_labels(table(rows), kinds, cameras, views)


@pytest.mark.parametrize(("size", "stride", "patches"), [
    ((256, 128), 16, 128), ((256, 128), 12, 210), ((16, 16), 16, 1), ((15, 64), 16, 0), ((31, 32), 16, 2),
])  # fmt: skip
def test_patches_of_an_image(size, stride, patches):
    assert _count_patches(size, stride) == patches


def renamed(names, **options):
    settings = Model(backbone="test_vit", jpm_parts=2, **options)
    model = TransReID(settings, (64, 32), 3, {"camera": 1, "view": 1, "modality": 1})
    tensors = {name: torch.full((2, 1, 3), float(n)) for n, name in enumerate(names)}
    found, left_out = _rename(tensors, settings, model, Path("w.pth"))
    order = {float(n): name for n, name in enumerate(names)}
    assert not any(x.shape == (2, 3) for name, x in found.items() if name != "backbone.sie.table")
    return {order[float(x.flatten()[0])]: name for name, x in found.items()}, left_out


def test_names_of_a_plain_transformer():
    names = {
        "base.cls_token": "backbone.cls_token", "base.blocks.5.norm1.bias": "backbone.blocks.5.norm1.bias",
        "base.norm.weight": "backbone.norm.weight", "base.sie_embed": "backbone.sie.table",
        "classifier.weight": "heads.0.weight", "bottleneck.running_mean": "necks.0.running_mean",
    }  # fmt: skip
    found, left_out = renamed([*names, "base.fc.weight", "base.head.bias"])
    assert found == names
    assert left_out == dict.fromkeys(("base.fc.weight", "base.head.bias"), "ImageNet's classifier")


def test_names_with_parts():
    names = {
        "base.blocks.4.norm1.bias": "backbone.blocks.4.norm1.bias", "b1.0.norm1.bias": "backbone.blocks.5.norm1.bias",
        "b1.1.weight": "backbone.norm.weight", "b2.0.attn.qkv.weight": "backbone.jpm.block.attn.qkv.weight",
        "b2.1.bias": "backbone.jpm.norm.bias", "classifier.weight": "heads.0.weight",
        "classifier_1.weight": "heads.1.weight", "classifier_2.weight": "heads.2.weight",
        "bottleneck_2.bias": "necks.2.bias",
    }  # fmt: skip
    unused = ["base.blocks.5.norm1.bias", "base.norm.weight"]
    found, left_out = renamed([*names, *unused], jpm=True)
    assert found == names
    assert list(left_out) == unused
    assert all("leaves this one unused" in reason for reason in left_out.values())


def test_a_margin_head_has_no_bias():
    names = ["classifier.weight", "classifier.bias", "bottleneck.bias"]
    found, left_out = renamed(names, head="arcface")
    assert set(found.values()) == {"heads.0.weight", "necks.0.bias"}
    assert left_out == {"classifier.bias": "a margin head has no bias"}
    assert len(renamed(names)[0]) == 3


def test_names_of_no_branch_are_refused():
    for name, options in (("other", {}), ("classifier_3.weight", {"jpm": True}), ("b1.0.norm1.bias", {})):
        with pytest.raises(CheckpointError, match=rf"w\.pth has tensors that the reference does not have: {name}"):
            renamed(["classifier.weight", name], **options)
