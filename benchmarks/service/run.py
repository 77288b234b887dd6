"""Load on the service: throughput against the model's own batched rate, p50 and p99, CPU time, and a full queue.

    python benchmarks/service/run.py MODEL [--seconds 60] [--connections 32] [--images FOLDER]

The client runs in a process of its own, whose CPU time is reported apart from that of the service and its processes.
"""

import argparse
import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from io import BytesIO
from pathlib import Path

import httpx
import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))
from timing import describe_machine

import resight

TICKS = os.sysconf("SC_CLK_TCK")


def pictures(folder: Path | None, count: int = 64) -> list[bytes]:
    """Pictures of a folder, or painted ones of 128x64 pixels."""
    if folder is not None:
        return [path.read_bytes() for path in sorted(folder.rglob("*.jpg"))[:count]]
    made = list[bytes]()
    for seed in range(count):
        pixels = np.random.default_rng(seed).integers(0, 255, (16, 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)
        buffer = BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
        made.append(buffer.getvalue())
    return made


def batched_rate(model: Path, images: list[bytes], seconds: float) -> float:
    """Pictures a second that the model embeds from bytes in full batches, with the same cores."""
    embedder = resight.load(model)
    batch = (images * embedder.batch_size)[: 4 * embedder.batch_size]
    embedder.embed(batch)
    began = time.perf_counter()
    count = 0
    while time.perf_counter() - began < seconds:
        count += len(embedder.embed(batch))
    return count / (time.perf_counter() - began)


def cpu_seconds(process: int) -> float:
    """CPU time of a process and of all that it started and that live."""
    total = 0.0
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            if int(folder.name) == process or os.getpgid(int(folder.name)) == process:
                total += (int(fields[11]) + int(fields[12])) / TICKS
    return total


def start(model: Path, folder: Path, *options: str) -> tuple[subprocess.Popen[str], str]:
    words = [sys.executable, "-m", "resight.cli", "serve", str(model), "--gallery", str(folder / "gallery")]
    words += ["--port", "0", "--requests-per-minute", "None", *options]
    log = (folder / "log").open("w")
    process = subprocess.Popen(words, stderr=log, text=True, start_new_session=True)
    while True:
        for line in (folder / "log").read_text().splitlines():
            if '"listening"' in line:
                return process, json.loads(line)["address"]
        if process.poll() is not None:
            raise SystemExit((folder / "log").read_text())
        time.sleep(0.1)


async def load(url: str, images: list[bytes], connections: int, seconds: float) -> list[tuple[float, int]]:
    """Seconds and status of every search that ends before the time is over."""
    done = list[tuple[float, int]]()
    until = time.perf_counter() + seconds
    limits = httpx.Limits(max_connections=connections)

    async def search(client: httpx.AsyncClient, first: int) -> None:
        number = first
        while time.perf_counter() < until:
            began = time.perf_counter()
            answer = await client.post("/v1/search", files={"image": images[number % len(images)]})
            done.append((time.perf_counter() - began, answer.status_code))
            number += 1

    async with httpx.AsyncClient(base_url=url, timeout=60, limits=limits, trust_env=False) as client:
        await asyncio.gather(*(search(client, n) for n in range(connections)))
    return done


def report(name: str, done: list[tuple[float, int]], seconds: float) -> float:
    times = np.array([t for t, status in done if status == 200])
    statuses = {status: sum(s == status for _, s in done) for status in sorted({s for _, s in done})}
    rate = len(times) / seconds
    quantiles = np.quantile(times, (0.5, 0.99)) * 1000 if len(times) else (np.nan, np.nan)
    print(f"{name}: {rate:.1f} searches/s, p50 {quantiles[0]:.0f} ms, p99 {quantiles[1]:.0f} ms, statuses {statuses}")
    return rate


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--images", type=Path)
    options = parser.parse_args()
    print(describe_machine())
    images = pictures(options.images)
    own_rate = batched_rate(options.model, images, min(20.0, options.seconds))
    print(f"the model alone, in full batches: {own_rate:.1f} pictures/s")
    with tempfile.TemporaryDirectory() as folder:
        process, url = start(options.model, Path(folder))
        try:
            with resight.Client(url) as client:
                for n, image in enumerate(images):
                    client.add(image, id=str(n))
            asyncio.run(load(url, images, options.connections, 2))
            server, usage = cpu_seconds(process.pid), resource.getrusage(resource.RUSAGE_SELF)
            began = time.perf_counter()
            done = asyncio.run(load(url, images, options.connections, options.seconds))
            seconds = time.perf_counter() - began
            server = cpu_seconds(process.pid) - server
            after = resource.getrusage(resource.RUSAGE_SELF)
            client_seconds = after.ru_utime + after.ru_stime - usage.ru_utime - usage.ru_stime
            rate = report("service", done, seconds)
            cores = os.cpu_count() or 1
            share = server / (seconds * cores)
            print(f"CPU: service {server:.1f} s ({100 * share:.0f} % of {cores} cores), client {client_seconds:.1f} s")
            print(
                f"{100 * rate / own_rate:.0f} % of the model's rate; "
                f"{100 * rate / own_rate / share:.0f} % with the cores that the service had"
            )
        finally:
            process.terminate()
            print(f"SIGTERM: exit status {process.wait(60)}")
    with tempfile.TemporaryDirectory() as folder:
        process, url = start(options.model, Path(folder), "--max-queue", "4")
        try:
            report("queue of 4 pictures", asyncio.run(load(url, images, options.connections, 5)), 5)
            report("afterwards, one connection", asyncio.run(load(url, images, 1, 3)), 3)
        finally:
            process.terminate()
            process.wait(60)


if __name__ == "__main__":
    main()
