"""The audit log: who searched, compared, listed or removed, when, and how much; no names and no pictures."""

import json
import os
from collections import deque
from pathlib import Path
from threading import Lock
from typing import Any, Final

from resight.files import make_folder, storing
from resight.service.logs import LOGGER, now

AUDIT_FILE: Final = "audit.jsonl"


class AuditLog:
    """Appends a line for each audited request.

    Args:
        folder: that has or gets the file `audit.jsonl`, readable by its owner alone; None writes to the log instead.

    Raises:
        StorageError: the file cannot be written.
    """

    def __init__(self, folder: Path | None) -> None:
        self.file = None if folder is None else folder / AUDIT_FILE
        self._lock = Lock()
        self._recent: deque[dict[str, Any]] = deque(maxlen=1000)
        if self.file is not None:
            make_folder(self.file.parent)
            self._append(b"")

    def write(self, key: str, method: str, route: str, status: int, counts: dict[str, int]) -> None:
        """Write a line; when the method returns, it is in the file.

        Args:
            key: id of the key.
            method: of the request.
            route: the template of the path, without the ids and names in it.
            status: of the answer.
            counts: such as the number of queries, answers or removed records.

        Raises:
            StorageError: the file cannot be written.
        """
        line = {"at": now(), "key": key, "method": method, "route": route, "status": status, **counts}
        with self._lock:
            if self.file is None:
                self._recent.append(line)
                LOGGER.info("audit", extra={"fields": line})
            else:
                self._append(json.dumps(line).encode() + b"\n")

    def tail(self, count: int) -> list[dict[str, Any]]:
        """Return the newest lines, oldest first; without a file, those since the start."""
        if self.file is None:
            with self._lock:
                return list(self._recent)[-count:]
        with storing(self.file), self.file.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 512 * (count + 1)))
            lines = file.read().split(b"\n")[1 if size > 512 * (count + 1) else 0 :]
        return [json.loads(line) for line in lines if line][-count:]

    def _append(self, data: bytes) -> None:
        assert self.file is not None
        with storing(self.file):
            descriptor = os.open(self.file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                os.write(descriptor, data)
            finally:
                os.close(descriptor)
