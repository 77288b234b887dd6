"""`resight bench train`."""

from dataclasses import dataclass
from typing import Any, Literal

from resight.cli.parsing import parse, print_rows
from resight.errors import ConfigError

_BACKBONES = {"vit-s": "vit_small_patch16_224", "vit-b": "vit_base_patch16_224"}


@dataclass(frozen=True)
class Bench:
    """Measure training on this machine against a plain way of writing it, in one run."""

    models: tuple[Literal["vit-s", "vit-b"], ...] = ("vit-s", "vit-b")
    """Backbones."""
    strides: tuple[int, ...] = (16, 12)
    """Of their patches."""
    jpm: Literal["both", "on", "off"] = "both"
    """With the jigsaw patch module, without, or each."""
    batch: int = 32
    """Pictures of a batch, a multiple of 4."""
    steps: int = 5
    """Measured, of each."""


def run(arguments: list[str]) -> None:
    """Prints the floor, the data path, and a line for each case and way."""
    if not arguments or arguments[0] not in ("train", "-h", "--help"):
        raise ConfigError("the verb is: resight bench train [OPTIONS]")
    options = parse(Bench, [a for a in arguments if a != "train"], "resight bench train")
    if options.batch % 4 or options.batch < 8:
        raise ConfigError(f"--batch must be a multiple of 4, and 8 or more, not {options.batch}")
    from resight.bench.training import Case, gemm_rate, measure_data, measure_training

    floor = gemm_rate()
    print(f"bf16 matrix products here: {floor / 1e12:.2f} TFLOP/s, the floor that shares are of")
    data = list[dict[str, Any]]()
    for source in ((64, 128), (1280, 720)):
        found = measure_data(source)
        plain, ours = found["plain"], found["ours"]
        data.append({"sources": f"{source[0]}x{source[1]}", "plain/s": plain, "ours/s": ours, "ratio": ours / plain})
    print_rows("data path, one core, from the second epoch on, 256x128 out", data)
    rows = list[dict[str, Any]]()
    for model in options.models:
        for stride in options.strides:
            for jpm in {"both": (False, True), "on": (True,), "off": (False,)}[options.jpm]:
                case = Case(_BACKBONES[model], stride, jpm, options.batch)
                plain, ours = measure_training(case, options.steps)
                rows += [_row(case.name, plain, plain, floor), _row(case.name, ours, plain, floor)]
    print_rows(f"training, batch {options.batch}, 256x128", rows)


def _row(name: str, found: dict[str, Any], plain: dict[str, Any], floor: float) -> dict[str, Any]:
    share = f"{100 * found['flops'] / found['model'] / floor:.0f} %" if "flops" in found else ""
    return {
        "model": name,
        "way": found["way"],
        "pictures/s": found["pictures_per_second"],
        "ratio": found["pictures_per_second"] / plain["pictures_per_second"],
        "data s": found["data"],
        "model s": found["model"],
        "of floor": share,
        "peak GB": found["peak_gb"],
    }
