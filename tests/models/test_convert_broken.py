"""Broken checkpoints and configurations: each is refused in one sentence, and nothing is left on the disk."""

import argparse
import io
import json
import os
import pickle
import resource
import struct
import time
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from resight import convert_checkpoint
from resight.cli import main
from resight.config.sections import Model
from resight.errors import ResightError
from resight.models.convert import options as options_module
from resight.models.convert.families import family_of
from resight.models.convert.options import check_options, read_options
from resight.models.pretrained import load_pretrained
from resight.models.transreid import TransReID

TYPE = "deit_small_patch16_224_TransReID"
PLAIN = {"MODEL.TRANSFORMER_TYPE": TYPE, "INPUT.SIZE_TRAIN": [64, 32]}
CAMERAS = PLAIN | {"MODEL.SIE_CAMERA": True}


@pytest.fixture(autouse=True)
def small_network(monkeypatch):
    """The reference's DeiT-S is replaced by a network of 64 x 6."""
    monkeypatch.setitem(options_module.BACKBONES, TYPE, "test_vit")


def reference_state(sie=("camera",), counts=(6, 1)):
    """The state dict that the reference writes, of a small network."""
    torch.manual_seed(0)
    counts = {"camera": counts[0], "view": counts[1], "modality": 1}
    state = TransReID(Model(backbone="test_vit", sie=sie), (64, 32), 5, counts).state_dict()
    names = {"backbone.": "base.", "heads.0.": "classifier.", "necks.0.": "bottleneck."}
    renamed = {}
    for name, tensor in state.items():
        prefix = next(prefix for prefix in names if name.startswith(prefix))
        renamed[names[prefix] + name.removeprefix(prefix)] = tensor
    if sie:
        renamed["base.sie_embed"] = renamed.pop("base.sie.table")[:, None]
    return renamed


def words(options):
    return [f"{name}={value}" for name, value in options.items()]


def refused(capfd, folder, *arguments) -> str:
    """Run `resight convert`, which must refuse; return its sentence."""
    before = sorted(folder.rglob("*"))
    status = main(["convert", *map(str, arguments)])
    out, error = capfd.readouterr()
    assert status == 2
    assert out == ""
    assert error.startswith("resight: ")
    assert error.count("\n") == 1
    assert len(error) < 900
    assert not any(advice in error for advice in ("weights_only", "torch.load", "Traceback", "add_safe_globals"))
    assert sorted(folder.rglob("*")) == before
    return error


def with_tensor(name, change):
    def write(path):
        state = reference_state()
        state[name] = change(state[name])
        torch.save(state, path)

    return write


def beside(name):
    def write(path):
        state = reference_state()
        torch.save(state | {name: torch.zeros_like(state["base.norm.weight"])}, path)

    return write


def filled(value, dtype=torch.float32):
    return lambda tensor: torch.full_like(tensor, value, dtype=dtype)


def content(data):
    return lambda path: path.write_bytes(data)


def saved(make, **options):
    return lambda path: torch.save(make(), path, **options)


def image(path):
    Image.new("RGB", (4, 4)).save(path, "JPEG")


def zip_of(entries, compression=zipfile.ZIP_STORED):
    def write(path):
        with zipfile.ZipFile(path, "w", compression) as archive:
            for name, data in entries.items():
                archive.writestr(name, data)

    return write


def compressed(path):
    buffer = io.BytesIO()
    torch.save(reference_state() | {"zeros": torch.zeros(20_000_000)}, buffer)
    with zipfile.ZipFile(buffer) as archive:
        zip_of({name: archive.read(name) for name in archive.namelist()}, zipfile.ZIP_DEFLATED)(path)


def truncated(path):
    torch.save(reference_state(), path)
    os.truncate(path, path.stat().st_size // 2)


def tuple_bomb(path):
    """A key that is a tuple of 2 ** 60 objects in 200 bytes."""
    opcodes = b"\x80\x02}" + b")" + b"q\x00h\x00\x86" * 60 + b"K\x01s."
    zip_of({"a/data.pkl": opcodes, "a/version": "3", "a/byteorder": "little"})(path)


def uninitialised(path):
    """A call that makes a tensor of 400 MB."""
    call = b"ctorch\nFloatTensor\n" + b"\x8a\x05" + struct.pack("<q", 10**8)[:5] + b"\x85R"
    opcodes = b"\x80\x02}" + b"X\x11\x00\x00\x00classifier.weight" + call + b"s."
    zip_of({"a/data.pkl": opcodes, "a/version": "3", "a/byteorder": "little"})(path)


class RunsCode:
    def __reduce__(self):
        return (os.system, ("echo boom",))


CONTENTS = {
    # of another type
    "empty": (content(b""), "it is empty"),
    "text": (content(b"hello, this is text\n" * 9), "it is a text file"),
    "html": (content(b"<!DOCTYPE html><html>"), "it is an HTML or XML page"),
    "lfs": (content(b"version https://git-lfs.github.com/spec/v1\n"), "it is a pointer of Git LFS"),
    "jpeg": (image, "it is a JPEG image"),
    "noise": (content(bytes(range(128, 256)) * 4), "a pickle that torch.save did not write"),
    "zeros": (content(bytes(5000)), "it is of no type that is known"),
    "safetensors": (lambda path: save_file({"a": torch.ones(1)}, path), "is a safetensors file, not one of torch.save"),
    "zip": (zip_of({"a.txt": "x"}), "it is a zip archive that torch.save did not write"),
    "torchscript": (zip_of({"a/data.pkl": "x", "a/constants.pkl": "x"}), "is a TorchScript archive"),
    "compressed": (compressed, "has compressed parts"),
    "truncated": (truncated, "is corrupt or no checkpoint"),
    "short": (content(b"PK\x03\x04"), "is corrupt or no checkpoint"),
    # pickles
    "plain pickle": (lambda path: path.write_bytes(pickle.dumps(RunsCode())), "a pickle that torch.save did not write"),
    "code": (saved(lambda: {"classifier.weight": RunsCode()}), "system, so it is not read"),
    "legacy code": (saved(lambda: [RunsCode()], _use_new_zipfile_serialization=False), "system, so it is not read"),
    "protocol": (saved(reference_state, pickle_protocol=4), "save it again with torch.save and no pickle_protocol"),
    "array": (saved(lambda: {"a": np.ones(2)}), "_reconstruct, so it is not read"),
    "tuples": (tuple_bomb, "a tuple of more than 1,000 objects"),
    "uninitialised": (uninitialised, "its tensors are larger than the file"),
    "list": (saved(lambda: [torch.ones(2)]), "holds no tensors by name"),
    "numbers": (saved(lambda: {1: torch.ones(2)}), "holds no tensors by name"),
    "incomplete": (zip_of({"a/data.pkl": b"\x80\x02h\x07.", "a/version": "3"}), "its pickle is incomplete"),
    # values
    "nan": (with_tensor("base.norm.weight", filled(float("nan"))), "NaN or infinite, in backbone.norm.weight"),
    "infinite": (with_tensor("base.norm.bias", filled(-float("inf"))), "NaN or infinite, in backbone.norm.bias"),
    "beyond float32": (with_tensor("base.norm.bias", filled(1e300, torch.float64)), "NaN or infinite"),
    "large": (with_tensor("base.norm.bias", filled(-1e30)), "weights above 1e+10, in backbone.norm.bias"),
    "variance": (with_tensor("bottleneck.running_var", filled(-1.0)), "below 0, in necks.0.running_var"),
    "count": (with_tensor("bottleneck.num_batches_tracked", lambda x: x - 1), "below 0, in necks.0.num_batches"),
    "complex": (with_tensor("base.norm.bias", filled(1, torch.complex64)), "backbone.norm.bias is complex64"),
    "integer": (with_tensor("base.norm.bias", filled(1, torch.int32)), "backbone.norm.bias is int32"),
    "boolean": (with_tensor("base.norm.bias", filled(1, torch.bool)), "backbone.norm.bias is bool"),
    "float count": (with_tensor("bottleneck.num_batches_tracked", torch.Tensor.float), "tracked is float32"),
    # tensors without a value of their own for each element
    "sparse": (with_tensor("base.norm.bias", torch.Tensor.to_sparse), "a sparse tensor as base.norm.bias"),
    "csr": (with_tensor("classifier.weight", torch.Tensor.to_sparse_csr), "a sparse tensor as classifier.weight"),
    "meta": (with_tensor("base.norm.bias", lambda x: x.to("meta")), "a meta tensor, which has no values, as base.norm"),
    "quantized": (
        with_tensor("base.norm.bias", lambda x: torch.quantize_per_tensor(x, 0.1, 0, torch.qint8)),
        "a quantized tensor as base.norm.bias",
    ),
    "expanded": (
        with_tensor("classifier.weight", lambda x: x[:1].clone().expand(300_000_000, -1)),
        "an expanded tensor as classifier.weight: its shape is [300000000, 64], and the file stores only 64 values",
    ),
    "overlapping": (
        with_tensor("classifier.weight", lambda x: x.clone().as_strided((100, 64), (1, 1))),
        "an expanded tensor as classifier.weight",
    ),
    # names and shapes
    "module": (beside("module.base.norm.weight"), "both base.norm.weight and module.base.norm.weight"),
    "backbone": (beside("backbone.norm.weight"), "the reference does not have: backbone.norm.weight"),
    "plain name": (beside("norm.weight"), "the reference does not have: norm.weight"),
    "scalar": (with_tensor("classifier.weight", lambda _: torch.tensor(1.0)), "classifier.weight is [] instead of"),
    "no rows": (with_tensor("classifier.weight", lambda x: x[:0]), "classifier.weight is [0, 64] instead of"),
    "no width": (with_tensor("classifier.weight", lambda _: torch.ones(10**8, 0)), "is [100000000, 0] instead of"),
    "narrow": (with_tensor("classifier.weight", lambda _: torch.ones(10**6, 1)), "heads.0.weight is [1000000, 1]"),
    "scalar sie": (with_tensor("base.sie_embed", lambda _: torch.tensor(1.0)), "base.sie_embed is [] instead of"),
    "flat sie": (with_tensor("base.sie_embed", lambda x: x[:, 0]), "base.sie_embed is [6, 64] instead of [rows, 1, D]"),
    "one row": (with_tensor("base.sie_embed", lambda x: x[:1]), "base.sie_embed is [1, 1, 64]"),
    "scalar grid": (with_tensor("base.pos_embed", lambda _: torch.tensor(1.0)), "backbone.pos_embed is [] instead of"),
    "another grid": (
        with_tensor("base.pos_embed", lambda _: torch.ones(1, 1 + 21, 64)),
        "base.pos_embed has 21 patches, and INPUT.SIZE_TRAIN (64, 32) with MODEL.STRIDE_SIZE 16 gives 8; "
        "MODEL.STRIDE_SIZE [8, 8] would give 21",
    ),
    "clip": (
        saved(lambda: {"image_encoder.conv1.weight": torch.ones(1), "classifier.bias": torch.ones(1)}),
        "the checkpoint has no classifier.weight; the file looks like CLIP-ReID",
    ),
    "swin": (
        saved(lambda: {"base.stages.0.weight": torch.ones(1), "classifier.weight": torch.ones(5, 64)}),
        "and the checkpoint has none (base.sie_embed)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CONTENTS)
def test_a_broken_checkpoint_is_refused_in_one_sentence(tmp_path, capfd, name):
    write, says = CONTENTS[name]
    write(tmp_path / "w.pth")
    command = [tmp_path / "w.pth", "--out", tmp_path / "ours", "--options", *words(CAMERAS)]
    assert says in refused(capfd, tmp_path, *command)


def test_a_long_list_of_missing_names_says_what_the_file_is(tmp_path, capfd):
    state = {name: tensor for name, tensor in reference_state().items() if ".blocks." not in name}
    torch.save(state | {"base.stages.0.weight": torch.ones(1)}, tmp_path / "w.pth")
    command = [tmp_path / "w.pth", "--out", tmp_path / "ours", "--options", *words(CAMERAS)]
    says = refused(capfd, tmp_path, *command)
    assert "missing: backbone.blocks.0.norm1.weight, backbone.blocks.0.norm1.bias, " in says
    assert "more; not known: backbone.stages.0.weight; the file looks like SOLIDER" in says


OPTIONS = {
    "MODEL.JMP=True": "no option named MODEL.JMP (the nearest is MODEL.JPM)",
    "model.jpm=True": "no option named model.jpm (the nearest is MODEL.JPM)",
    "JPM=True": "no option named JPM (the nearest is ",
    "MODEL.POOLING=gem": "no option named MODEL.POOLING (the nearest is ",
    "MODEL.GEM_POOLING=True": "no option named MODEL.GEM_POOLING",
    "MODEL.STEM_CONV=True": "no option named MODEL.STEM_CONV (the nearest is ",
    "MODEL=5": "no option named MODEL (",
    "=5": "no option named  (",
    "MODEL.JPM": "is not of the form NAME=VALUE",
    "MODEL.JPM=[": "the option MODEL.JPM cannot be read as YAML",
    "MODEL.JPM=maybe": "MODEL.JPM 'maybe' is invalid: it takes True or False",
    "MODEL.JPM=1": "MODEL.JPM 1 is invalid",
    "MODEL.JPM=null": "MODEL.JPM None is invalid",
    "MODEL.JPM=True": "MODEL.JPM is True, and the checkpoint has no branches of JPM",
    "MODEL.NAME=resnet101": "MODEL.NAME 'resnet101' is not one of transformer, resnet50",
    "MODEL.TRANSFORMER_TYPE=None": "given twice",
    "MODEL.NECK=no": "MODEL.NECK False is not one of bnneck",
    "MODEL.LAST_STRIDE=2": "MODEL.LAST_STRIDE 2 is not one of 1",
    "MODEL.COS_LAYER=True": "MODEL.COS_LAYER True is not one of False",
    "MODEL.SIE_COE=.nan": "MODEL.SIE_COE nan is invalid: it takes a number from 0 to 1000",
    "MODEL.SIE_COE=.inf": "MODEL.SIE_COE inf is invalid",
    "MODEL.SIE_COE=-1": "MODEL.SIE_COE -1 is invalid",
    "MODEL.STRIDE_SIZE=16": "MODEL.STRIDE_SIZE 16 is invalid: it takes 2 values, each an integer from 1 to 64",
    "MODEL.STRIDE_SIZE=[16.5, 16.5]": "MODEL.STRIDE_SIZE (16.5, 16.5) is invalid",
    "MODEL.STRIDE_SIZE=[0, 0]": "MODEL.STRIDE_SIZE (0, 0) is invalid",
    "MODEL.STRIDE_SIZE=[12, 16]": "the stride must be the same in both directions",
    "MODEL.STRIDE_SIZE=[8, 8]": "base.pos_embed has 8 patches, and INPUT.SIZE_TRAIN (64, 32) with MODEL.STRIDE_SIZE 8 "
    "gives 21; MODEL.STRIDE_SIZE [16, 16] would give 8",
    "MODEL.DROP_PATH=2": "MODEL.DROP_PATH 2 is invalid: it takes a number from 0 to 0.99",
    "MODEL.SHUFFLE_GROUP=0": "MODEL.SHUFFLE_GROUP 0 is invalid",
    "MODEL.DEVIDE_LENGTH=1000000000": "MODEL.DEVIDE_LENGTH 1000000000 is invalid",
    "MODEL.SHIFT_NUM=-1": "MODEL.SHIFT_NUM -1 is invalid",
    "MODEL.ID_LOSS_TYPE=sphere": "MODEL.ID_LOSS_TYPE 'sphere' is not one of softmax",
    "INPUT.SIZE_TEST=[32, 64]": "INPUT.SIZE_TEST (32, 64) is not INPUT.SIZE_TRAIN (64, 32)",
    "INPUT.SIZE_TEST=256": "INPUT.SIZE_TEST 256 is invalid",
    "INPUT.SIZE_TEST=[100000, 100000]": "INPUT.SIZE_TEST (100000, 100000) is invalid",
    "INPUT.PIXEL_STD=[0, 0, 0]": "INPUT.PIXEL_STD (0, 0, 0) is invalid",
    "INPUT.PIXEL_MEAN=[123.7, 116.3, 103.5]": "INPUT.PIXEL_MEAN (123.7, 116.3, 103.5) is invalid",
    "INPUT.PIXEL_MEAN=[0.5, 0.5]": "INPUT.PIXEL_MEAN (0.5, 0.5) is invalid",
    "TEST.NECK_FEAT=both": "TEST.NECK_FEAT 'both' is not one of before, after",
    "TEST.FEAT_NORM=False": "TEST.FEAT_NORM False is not one of yes, no",
    "SOLVER.COSINE_SCALE=0": "SOLVER.COSINE_SCALE 0 is invalid",
    "SOLVER.BASE_LR=fast": "SOLVER.BASE_LR 'fast' is invalid: it takes a number",
    "SOLVER.MAX_EPOCHS=" + "9" * 900: "SOLVER.MAX_EPOCHS",
    "SOLVER.SEED=" + "9" * 90_000: "has a value of more than 1,000 characters",
    "SOLVER.SEED=" + "(" * 900: "SOLVER.SEED '(((",
    "SOLVER.STEPS=" + "[" * 900: "nested",
    "DATASETS.NAMES={a: 1}": "DATASETS.NAMES {'a': 1} is invalid",
    "SOLVER.STEPS=!!python/object/apply:os.system ['echo boom']": "cannot be read as YAML",
    "X" * 5000 + "=1": "no option named XXX",
}


@pytest.fixture
def checkpoint(tmp_path):
    torch.save(reference_state(), tmp_path / "w.pth")
    return tmp_path / "w.pth"


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option[:40])
def test_a_wrong_option_is_refused_by_name(checkpoint, tmp_path, capfd, option):
    command = [checkpoint, "--out", tmp_path / "ours", "--options", *words(CAMERAS), option]
    assert OPTIONS[option] in refused(capfd, tmp_path, *command)


@pytest.mark.parametrize(
    ("sizes", "says"),
    [
        ("[100000, 100000]", "INPUT.SIZE_TRAIN (100000, 100000) is invalid: it takes 2 values"),
        ("null", "INPUT.SIZE_TRAIN None is invalid"),
        ("256", "INPUT.SIZE_TRAIN 256 is invalid"),
        ("(8, 8)", "INPUT.SIZE_TRAIN (8, 8) and MODEL.STRIDE_SIZE give 0 patches"),
        ("[4096, 4096]", "base.pos_embed has 8 patches, and INPUT.SIZE_TRAIN (4096, 4096)"),
        ("[4096, 4096] MODEL.STRIDE_SIZE=[1,1]", "patches, not 1 to 65,536"),
    ],
)
def test_sizes_are_checked_before_anything_is_built(checkpoint, tmp_path, capfd, sizes, says):
    size, *others = sizes.split(" MODEL")
    options = [f"MODEL.TRANSFORMER_TYPE={TYPE}", "MODEL.SIE_CAMERA=True", f"INPUT.SIZE_TRAIN={size}"]
    options += [f"MODEL{other}" for other in others]
    started = time.perf_counter()
    assert says in refused(capfd, tmp_path, checkpoint, "--out", tmp_path / "ours", "--options", *options)
    assert time.perf_counter() - started < 10


STATED = {
    ("--cameras", "7"): "SIE has 6 rows, one for each camera, and 7 are stated",
    ("--cameras", "0"): "--cameras 0 is invalid",
    ("--cameras", "-1"): "--cameras -1 is invalid",
    ("--views", "3"): "--views 3 needs MODEL.SIE_VIEW=True",
    ("--view-is-modality",): "--view-is-modality needs MODEL.SIE_VIEW=True",
    ("--cameras", "4", "SIE_VIEW"): "give the number of cameras with --cameras",
    ("--cameras", "6", "SIE_VIEW"): "give the number of cameras with --cameras",
    ("--cameras", "3", "--views", "3", "SIE_VIEW"): "give the number of cameras with --cameras",
    ("--views", "5", "SIE_VIEW"): "give the number of cameras with --cameras",
    ("SIE_VIEW",): "give the number of cameras with --cameras",
}


@pytest.mark.parametrize("stated", STATED, ids=" ".join)
def test_stated_cameras_and_views_must_fit(checkpoint, tmp_path, capfd, stated):
    extra = ["MODEL.SIE_VIEW=True"] if "SIE_VIEW" in stated else []
    command = [*(word for word in stated if word != "SIE_VIEW"), "--options", *words(CAMERAS), *extra]
    assert STATED[stated] in refused(capfd, tmp_path, checkpoint, "--out", tmp_path / "ours", *command)


def test_side_information_without_an_embedding_is_refused_unless_there_is_one_camera(tmp_path, capfd):
    torch.save(reference_state(sie=()), tmp_path / "w.pth")
    command = [tmp_path / "w.pth", "--out", tmp_path / "ours", "--options", *words(CAMERAS)]
    assert "the options have SIE (camera) and the checkpoint has none" in refused(capfd, tmp_path, *command)
    conversion = convert_checkpoint(tmp_path / "w.pth", CAMERAS, cameras=1)
    assert conversion.card.model.sie == ()


MERGES = "".join(f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}\n" for i in range(1, 12))
ALIASES = "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))
YAMLS = {
    "aliases": ("a0: &a0 [x]\n" + ALIASES, "aliases"),
    "merges": ("a0: &a0 {x: 1}\n" + MERGES, "aliases"),
    "deep": ("MODEL: " + "[" * 10_000, "nested"),
    "deep maps": ("MODEL: " + "{a: " * 10_000, "nested"),
    "huge": ("MODEL:\n" + "  JPM: True\n" * 10_000, "more than any configuration"),
    "line": ("MODEL:\n  JPM: [\nINPUT: 1\n", "line 4"),
    "tabs": ("MODEL:\n\tJPM: True\n", "line 2"),
    "empty": ("", "it has no sections"),
    "list": ("- a", "it has no sections"),
    "unknown section": ("MODLE:\n  JPM: True\n", "no option named MODLE.JPM (the nearest is MODEL.JPM)"),
    "no section": ("JPM: True\nMODEL:\n  JPM: True\n", "no option named JPM"),
    "nested": ("MODEL:\n  JPM:\n    a: 1\n", "MODEL.JPM {'a': 1} is invalid"),
    "null": ("MODEL:\nINPUT:\n  PROB: 0.5\n", "no option named MODEL"),
    "numbers": ("1:\n  2: 3\n", "no option named 1.2"),
    "twice": ("MODEL.JPM: True\nMODEL:\n  JPM: False\n", "has MODEL.JPM twice"),
    "code": ("MODEL: !!python/object/apply:os.system ['echo boom']\n", "cannot be read as YAML"),
    "binary": (b"\xff\xfe\x00", "no UTF-8 text"),
}


@pytest.mark.parametrize("name", YAMLS)
def test_a_broken_configuration_is_refused(checkpoint, tmp_path, capfd, name):
    text, says = YAMLS[name]
    (tmp_path / "c.yml").write_bytes(text if isinstance(text, bytes) else text.encode())
    started, memory = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    command = [checkpoint, "--out", tmp_path / "ours", "--config", tmp_path / "c.yml"]
    assert says in refused(capfd, tmp_path, *command)
    assert time.perf_counter() - started < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 200_000  # KiB


def test_folders_and_names_that_cannot_be_read(checkpoint, tmp_path, capfd):
    out, options = ["--out", tmp_path / "ours"], ["--options", *words(CAMERAS)]
    assert "it is a folder" in refused(capfd, tmp_path, tmp_path, *out, *options)
    assert "cannot be read: File name too long" in refused(capfd, tmp_path, tmp_path / ("a" * 300), *out, *options)
    os.mkfifo(tmp_path / "pipe.pth")
    assert "it is not a regular file" in refused(capfd, tmp_path, tmp_path / "pipe.pth", *out, *options)
    assert "no such file" in refused(capfd, tmp_path, checkpoint, *out, "--config", tmp_path)
    assert "File name too long" in refused(capfd, tmp_path, checkpoint, *out, "--config", tmp_path / ("a" * 300))
    checkpoint.rename(tmp_path / "w.safetensors")
    assert "not a safetensors file" in refused(capfd, tmp_path, tmp_path / "w.safetensors", *out, *options)
    (tmp_path / "w.safetensors").write_bytes(struct.pack("<Q", 10**12) + json.dumps({"a": 1}).encode())
    assert "is corrupt or no checkpoint" in refused(capfd, tmp_path, tmp_path / "w.safetensors", *out, *options)


def test_the_output_is_checked_before_the_conversion(tmp_path, capfd):
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    (tmp_path / "file").write_text("x")
    missing = [tmp_path / "missing.pth", "--options", *words(CAMERAS)]  # would be refused later
    for out, says in (
        ("link", "link exists already and is not written over"),
        ("file", "file exists already and is not written over"),
        ("file/ours", "cannot be written: a part of the path is a file, not a folder"),
        ("link/ours", "cannot be written: a part of the path is a file, not a folder"),
        ("a" * 240, "cannot be written: File name too long"),
    ):
        assert says in refused(capfd, tmp_path, *missing, "--out", tmp_path / out)


def test_numbers_of_numpy_and_namespaces_are_left_out(tmp_path):
    extras = {"args": argparse.Namespace(lr=1, names=["a"]), "epoch": np.int64(3), "best": np.float64(0.5)}
    for legacy in (True, False):
        file = tmp_path / f"{legacy}.pth"
        content = {"model": OrderedDict(reference_state()), **extras}
        torch.save(content, file, _use_new_zipfile_serialization=not legacy)
        assert convert_checkpoint(file, CAMERAS).left_out == {}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_floating_point_numbers_of_other_precisions_become_float32(tmp_path, dtype):
    state = reference_state()
    torch.save({k: v.to(dtype) if v.is_floating_point() else v for k, v in state.items()}, tmp_path / "w.pth")
    model = convert_checkpoint(str(tmp_path / "w.pth"), CAMERAS).model
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert torch.equal(model.backbone.cls_token, state["base.cls_token"].to(dtype).float())


def test_every_option_of_the_reference_is_known(checkpoint, tmp_path):
    (tmp_path / "c.yml").write_text(
        "MODEL:\n  PRETRAIN_CHOICE: 'imagenet'\n  PRETRAIN_PATH: 'C:\\data\\jx.pth'\n  METRIC_LOSS_TYPE: 'triplet'\n"
        "  IF_LABELSMOOTH: 'off'\n  IF_WITH_CENTER: 'no'\n  NAME: 'transformer'\n  NO_MARGIN: True\n"
        f"  DEVICE_ID: ('0')\n  TRANSFORMER_TYPE: '{TYPE}'\n  STRIDE_SIZE: (16, 16)\n  SIE_CAMERA: True\n"
        "  SIE_COE: 3.0\n  JPM: False\n  SHIFT_NUM: 8\n  RE_ARRANGE: True\nINPUT:\n  SIZE_TRAIN: [64, 32]\n"
        "  SIZE_TEST: '[64, 32]'\n  PROB: 0.5\n  RE_PROB: 0.5\n  PADDING: 10\n  PIXEL_MEAN: [5e-1, 0.5, 0.5]\n"
        "  PIXEL_STD: [0.5, 0.5, 0.5]\nDATASETS:\n  NAMES: ('market1501')\n  ROOT_DIR: ('../data')\n"
        "DATALOADER:\n  SAMPLER: 'softmax_triplet'\n  NUM_INSTANCE: 4\n  NUM_WORKERS: 8\nSOLVER:\n"
        "  OPTIMIZER_NAME: 'SGD'\n  MAX_EPOCHS: 120\n  BASE_LR: 0.01\n  IMS_PER_BATCH: 64\n  WARMUP_METHOD: 'linear'\n"
        "  LARGE_FC_LR: True\n  CHECKPOINT_PERIOD: 120\n  LOG_PERIOD: 50\n  EVAL_PERIOD: 120\n  WEIGHT_DECAY: 1e-4\n"
        "  WEIGHT_DECAY_BIAS: 1e-4\n  BIAS_LR_FACTOR: 2\n  STEPS: (40, 70)\nTEST:\n  EVAL: True\n  IMS_PER_BATCH: 256\n"
        "  RE_RANKING: False\n  WEIGHT: ''\n  NECK_FEAT: 'before'\n  FEAT_NORM: 'yes'\nOUTPUT_DIR: '../logs/x'\n"
    )
    conversion = convert_checkpoint(checkpoint, read_options(tmp_path / "c.yml"))
    assert conversion.card.preprocessing.mean == (0.5, 0.5, 0.5)
    assert conversion.card.model.jpm_shift == 8
    assert conversion.card.vocabulary.cameras[0] == "market1501:1"
    assert conversion.notes == ("32 options concern training, which a model folder does not store",)


@pytest.mark.parametrize(
    "value", [object(), [[[["a"]]]], 10**5000, b"x", {1}, float("nan"), "\0", "'", "((" * 99], ids=[""] * 9
)
def test_values_of_any_type_are_refused(value):
    for name in ("MODEL.STRIDE_SIZE", "MODEL.JPM", "SOLVER.BASE_LR", "TEST.NECK_FEAT", "INPUT.PIXEL_STD"):
        with pytest.raises(ResightError, match=name):
            check_options({name: value})


def test_weights_of_a_backbone_have_one_name_and_floating_point_numbers(tmp_path):
    def backbone():
        return TransReID(Model(backbone="test_vit"), (64, 32), 5, {"camera": 0, "view": 0, "modality": 1}).backbone

    state = backbone().state_dict()
    for changes, says in (
        ({"base.norm.weight": state["norm.weight"]}, "has both norm.weight and base.norm.weight"),
        ({"pos_embed": state["pos_embed"].int()}, "pos_embed is int32"),
        ({"cls_token": state["cls_token"] * 1j}, "cls_token is complex64"),
        ({"cls_token": state["cls_token"] + 1e20}, "weights above"),
    ):
        torch.save(state | changes, tmp_path / "w.pth")
        with pytest.raises(ResightError, match=says):
            load_pretrained(backbone(), str(tmp_path / "w.pth"), "test_vit")


@pytest.mark.parametrize(
    ("names", "family"),
    [
        (["image_encoder.proj", "classifier.weight"], "CLIP-ReID"),
        (["base.part_token1", "base.blocks.0.norm1.bias"], "PASS"),
        (["backbone.part_token1", "backbone.blocks.0.attn.qkv.bias"], "PASS before its fine-tuning"),
        (["base.patch_embed.conv.0.weight", "base.blocks.0.x"], "TransReID-SSL with a convolutional stem"),
        (["base.patch_embed.projection.bias"], "SOLIDER"),
        (["backbone.stages.0.blocks.0.norm1.bias"], "SOLIDER before its fine-tuning"),
        (["backbone.layer1.0.conv1.weight", "heads.bnneck.bias"], "fast-reid"),
        (["conv2.0.conv1.conv.weight"], "OSNet of torchreid"),
        (["backbone.conv_stem.weight"], "MiewID"),
        (["layers.0.blocks.0.norm1.weight"], "a Swin transformer of timm"),
        (["base.blocks.0.norm1.bias", "b1.0.norm1.bias"], "TransReID with JPM"),
        (["base.blocks.0.norm1.bias"], "TransReID without JPM"),
        (["base.layer1.0.conv1.weight"], "the ResNet-50 baseline of the reference"),
        (["necks.0.bias"], "a model of resight itself"),
        (["blocks.0.attn.qkv.weight"], "a vision transformer without the heads"),
        (["layer1.0.conv1.weight"], "a plain ResNet"),
        (["x"], None),
    ],
)
def test_families_are_known_by_their_names(names, family):
    known = family_of({name: torch.ones(1) for name in names})
    assert known == family or known.startswith(family)
