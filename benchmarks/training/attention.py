"""Which attention is faster, by device, dtype and length: formed [B, h, T, T] weights, or torch's fused kernel; forward
alone, and forward with backward. `python benchmarks/training/attention.py`. `resight.device.forms_attention` follows
it."""

import sys
from pathlib import Path

import torch
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parents[1]))
from timing import describe_machine, median_seconds


def main() -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    print(describe_machine())
    print(f"{device}, batch 32, 12 heads of 64; milliseconds")
    print(f"{'':24s}{'formed':>10s}{'fused':>10s}{'formed, with backward':>24s}{'fused, with backward':>24s}")
    for dtype in (torch.float32, torch.bfloat16):
        for length in (56, 129, 211, 442):
            q, k, v = (
                torch.randn(32, 12, length, 64, dtype=dtype, device=device, requires_grad=True) for _ in range(3)
            )

            def formed(q=q, k=k, v=v):
                weights = ((q * 0.125) @ k.transpose(-2, -1)).float().softmax(-1)
                return weights.to(v.dtype) @ v

            def fused(q=q, k=k, v=v):
                return F.scaled_dot_product_attention(q, k, v, scale=0.125)

            cells = []
            for attention in (formed, fused):
                with torch.no_grad():
                    cells.append(median_seconds(attention, 9))
            for attention in (formed, fused):
                cells.append(median_seconds(lambda attention=attention: attention().sum().backward(), 9))
            name = f"{str(dtype).removeprefix('torch.')}, {length} tokens"
            row = "".join(f"{1e3 * cell:{width}.1f}" for cell, width in zip(cells, (10, 10, 24, 24), strict=True))
            print(f"{name:24s}{row}", flush=True)


if __name__ == "__main__":
    main()
