"""What a process loads that uses a gallery without images, and what a decoding process loads before its first image."""

import subprocess
import sys

from gallery_engines import INFO

from resight.gallery.engines.sqlite.sqlite_engine import SQLiteEngine

CHECK = """
import sys
import resight

with resight.open_gallery(sys.argv[1]) as gallery:
    gallery.stats()
    print(sorted({"timm", "torchvision"} & set(sys.modules)))
import resight.service.work.decode_worker
print("torchvision.transforms.v2" in sys.modules)
"""


def test_a_gallery_opens_without_the_networks_and_a_decoding_process_is_ready_to_resize(tmp_path):
    SQLiteEngine.create(tmp_path / "g", INFO)
    command = [sys.executable, "-c", CHECK, str(tmp_path / "g")]
    process = subprocess.run(command, capture_output=True, text=True, check=True)
    assert process.stdout.splitlines() == ["[]", "True"]
