"""Which attention is faster, by device, dtype and length: formed [B, h, T, T] weights, or torch's fused kernel; forward
alone, and forward with backward. `python benchmarks/training/attention.py`. The rule in model/blocks.py follows it."""

import time
from statistics import median

import torch
from torch.nn import functional as F


def seconds(work) -> float:
    work()
    found = []
    for _ in range(9):
        began = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        found.append(time.perf_counter() - began)
    return median(found)


def main() -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
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
            for work in (formed, fused):
                with torch.no_grad():
                    cells.append(seconds(work))
            cells += [seconds(lambda work=work: work().sum().backward()) for work in (formed, fused)]
            name = f"{str(dtype).removeprefix('torch.')}, {length} tokens"
            print(f"{name:24s}" + "".join(f"{1e3 * c:{w}.1f}" for c, w in zip(cells, (10, 10, 24, 24), strict=True)))


if __name__ == "__main__":
    main()
