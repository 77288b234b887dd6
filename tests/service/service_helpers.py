"""Pictures, and what the tests of the service share (the fixtures are in service_fixtures.py)."""

from io import BytesIO

import numpy as np
from PIL import Image

URL = "http://127.0.0.1:8000"
CALIBRATION = {
    "slope": 8.0, "offset": -4.0, "similarity": (-1.0, 0.2, 0.9, 1.0), "probability": (0.01, 0.1, 0.9, 0.99),
    "threshold": 0.6, "false_match_rate": 0.01, "true_match_rate": 0.8, "dataset": "none", "same": 10,
    "different": 1000,
}  # fmt: skip


def jpeg(identity=0, shot=0, size=(32, 64)):
    """The bytes of a picture whose colours follow from the identity, a little noisy by the shot."""
    colours = np.random.default_rng(identity).integers(0, 255, (4, 1, 3)).repeat(size[1] // 4, 0).repeat(size[0], 1)
    noise = np.random.default_rng(shot + 1000).integers(-20, 20, colours.shape)
    buffer = BytesIO()
    Image.fromarray((colours + noise).clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def refused(answer, status, *words):
    """The request is refused with one sentence that has some words."""
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert set(body) == {"detail", "request"}
    for word in words:
        assert word in body["detail"], body["detail"]
    assert "Traceback" not in answer.text
