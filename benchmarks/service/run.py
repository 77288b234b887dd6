"""Load on the service: throughput against the model's own batched rate, p50 and p99, CPU time, and a full queue.

    python benchmarks/service/run.py MODEL [--seconds 60] [--connections 32] [--images FOLDER]

Searches with 1 and with 16 pictures a request. The client runs in a process of its own, whose CPU time is reported
apart from that of the service and its processes. The CPU time of a picture, of the model alone and of the service,
says the same as the rates where nothing else runs, and is less disturbed where something does.
"""

import argparse
import asyncio
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))
from timing import describe_machine

import resight

TICKS = os.sysconf("SC_CLK_TCK")
BOUNDARY = "between-the-parts-of-the-form"
LENGTH = re.compile(rb"\r\ncontent-length: (\d+)", re.IGNORECASE)
WARM_UP_SECONDS = 3
QUEUE = 1024  # pictures: 32 connections with 16 pictures each are never refused


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


def batched_rate(model: Path, images: list[bytes], seconds: float) -> tuple[float, float]:
    """Pictures a second that the model embeds from bytes in full batches, with the same cores; CPU time of each."""
    embedder = resight.load(model)
    batch = (images * embedder.batch_size)[: 4 * embedder.batch_size]
    embedder.embed(batch)
    began, cpu = time.perf_counter(), time.process_time()
    count = 0
    while time.perf_counter() - began < seconds:
        count += len(embedder.embed(batch))
    return count / (time.perf_counter() - began), (time.process_time() - cpu) / count


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


def request_of(images: list[bytes], host: str) -> bytes:
    """A search with some pictures, as it is sent."""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'.encode()
    body = b"".join(head + image + b"\r\n" for image in images) + f"--{BOUNDARY}--\r\n".encode()
    lines = ["POST /v1/search HTTP/1.1", f"Host: {host}", f"Content-Length: {len(body)}"]
    lines.append(f"Content-Type: multipart/form-data; boundary={BOUNDARY}")
    return "\r\n".join([*lines, "", ""]).encode() + body


async def load(
    url: str, images: list[bytes], connections: int, seconds: float, per_request: int = 1
) -> list[tuple[float, int]]:
    """Seconds and status of every search that ends before the time is over, over connections that are kept."""
    done = list[tuple[float, int]]()
    host = url.removeprefix("http://")
    address, _, port = host.rpartition(":")
    starts = range(0, len(images), per_request)
    requests = [request_of([images[(s + n) % len(images)] for n in range(per_request)], host) for s in starts]
    until = time.perf_counter() + seconds

    async def search(first: int) -> None:
        reader, writer = await asyncio.open_connection(address, int(port), limit=1 << 22)
        number = first
        while time.perf_counter() < until:
            began = time.perf_counter()
            writer.write(requests[number % len(requests)])
            head = await reader.readuntil(b"\r\n\r\n")
            length = LENGTH.search(head)
            assert length is not None, head
            await reader.readexactly(int(length[1]))
            done.append((time.perf_counter() - began, int(head.split(maxsplit=2)[1])))
            number += 1
        writer.close()

    await asyncio.gather(*(search(n) for n in range(connections)))
    return done


def report(name: str, done: list[tuple[float, int]], seconds: float, per_request: int = 1) -> float:
    """Print rates, times and statuses; return pictures a second."""
    times = np.array([t for t, status in done if status == 200])
    statuses = {status: sum(s == status for _, s in done) for status in sorted({s for _, s in done})}
    rate = len(times) * per_request / seconds
    quantiles = np.quantile(times, (0.5, 0.99)) * 1000 if len(times) else (np.nan, np.nan)
    print(f"{name}: {rate:.1f} pictures/s, p50 {quantiles[0]:.0f} ms, p99 {quantiles[1]:.0f} ms, statuses {statuses}")
    return rate


def client_seconds() -> float:
    """CPU time of this process, which has the clients."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def measure(process: int, url: str, images: list[bytes], options: argparse.Namespace, per_request: int) -> None:
    """Load the service, and print what it reaches of the model's own rate."""
    asyncio.run(load(url, images, options.connections, WARM_UP_SECONDS, per_request))
    server, client, began = cpu_seconds(process), client_seconds(), time.perf_counter()
    done = asyncio.run(load(url, images, options.connections, options.seconds, per_request))
    seconds = time.perf_counter() - began
    server, client = cpu_seconds(process) - server, client_seconds() - client
    rate = report(f"{per_request} a request", done, seconds, per_request)
    cores = os.cpu_count() or 1
    share = server / (seconds * cores)
    print(f"  CPU: service {server:.1f} s ({100 * share:.0f} % of {cores} cores), client {client:.1f} s")
    print(
        f"  {100 * rate / options.own_rate:.0f} % of the model's rate; "
        f"{100 * rate / options.own_rate / share:.0f} % with the cores that the service had"
    )
    each = server / (rate * seconds)
    ratio = 100 * options.own_cpu / each
    print(f"  CPU time of a picture: {1000 * each:.2f} ms; that of the model alone is {ratio:.0f} % of it")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--images", type=Path)
    options = parser.parse_args()
    print(describe_machine())
    images = pictures(options.images)
    options.own_rate, options.own_cpu = batched_rate(options.model, images, min(20.0, options.seconds))
    alone = f"{options.own_rate:.1f} pictures/s, {1000 * options.own_cpu:.2f} ms of CPU time each"
    print(f"the model alone, in full batches: {alone}")
    with tempfile.TemporaryDirectory() as folder:
        process, url = start(options.model, Path(folder), "--max-queue", str(QUEUE))
        try:
            with resight.Client(url) as client:
                for n, image in enumerate(images):
                    client.add(image, id=str(n))
            for per_request in (1, 16):
                measure(process.pid, url, images, options, per_request)
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
