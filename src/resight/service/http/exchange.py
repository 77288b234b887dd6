"""One request and its answer, as they pass the guard."""

import itertools
import logging
import secrets
import time
from collections.abc import Callable
from typing import Any, Final

from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope, Send

from resight.errors import StorageError
from resight.service.errors import ServiceError
from resight.service.http.responses import problem
from resight.service.logs import log
from resight.service.security.permissions import Permission

SECURITY_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""Of every answer that does not set them itself."""
_ENCODED_HEADERS: Final = [(name.lower().encode(), value.encode()) for name, value in SECURITY_HEADERS.items()]
_PROCESS: Final = secrets.token_hex(4)
_NUMBERS: Final = itertools.count(1)
"""Of the requests: an id names the process and the number, since random bytes for each take longer than its checks."""
_REMEMBERED: Final = ("POST", "DELETE")


class Exchange:
    """One request and its answer, as they pass the guard."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, max_body: int) -> None:
        self.scope = scope
        self.headers = Headers(scope=scope)
        self.request_id = f"{_PROCESS}{next(_NUMBERS):08x}"
        self.began = time.perf_counter()
        self.route = "none"
        self.key = "none"
        self.status = 0
        self.counts: dict[str, int] = {}
        self.body_complete = False
        self.state: dict[str, Any] = scope.setdefault("state", {})
        self.state["request_id"] = self.request_id
        client = scope.get("client")
        self.address = f"address {client[0] if client else 'local'}"
        self._receive = receive
        self._send = send
        self._max_body = max_body
        self._size = 0
        self._too_large = False
        self._refused = False
        self.audit: Callable[[int], None] | None = None
        """Writes the line of the audit log, with the status."""

    def require_size(self) -> None:
        """Check the stated size of the body, before any of it is read."""
        stated = self.headers.get("content-length", "0")
        if stated.isdigit() and int(stated) > self._max_body:
            raise ServiceError(413, f"the body has more than {self._max_body / 1e6:g} megabytes")

    def is_repeatable(self, permission: Permission) -> bool:
        """Whether an `Idempotency-Key` is remembered here; forms are safe to repeat by the ids of their records."""
        kind = self.headers.get("content-type", "application/json").split(";")[0].strip()
        return permission.method in _REMEMBERED and permission.access != "public" and kind == "application/json"

    async def receive(self) -> Message:
        """Read a part of the body; when it is larger than it may be, its rest is not read."""
        message = await self._receive()
        if message["type"] == "http.request":
            self._size += len(message.get("body", b""))
            self.body_complete = not message.get("more_body", False)
            if self._size > self._max_body:
                self._too_large = True
                return {"type": "http.disconnect"}
        return message

    async def send(self, message: Message) -> None:
        """Send a part of the answer, with the security headers; the audit log has its line before the first part."""
        if self._refused:
            return
        if message["type"] == "http.response.start":
            if self._too_large:
                await self.refuse(413, f"the body has more than {self._max_body / 1e6:g} megabytes")
                return
            if not await self._audit(message["status"]):
                return
        await self._send_with_headers(message)

    async def refuse(self, status: int, reason: str, headers: dict[str, str] | None = None) -> None:
        """Answer with an error, unless an answer has begun; what the application still sends is left out."""
        if self.status or self._refused:
            return
        self._refused = True
        if await self._audit(status):
            await problem(self.scope, status, reason, self.request_id, headers)(
                self.scope, self._receive, self._send_with_headers
            )

    async def _audit(self, status: int) -> bool:
        """Write the line of the audit log; where that is not possible, refuse the request."""
        write = self.audit
        self.audit = None
        if write is None:
            return True
        try:
            write(status)
            return True
        except StorageError as error:
            log("audit log cannot be written", logging.ERROR, request=self.request_id, error=str(error))
            self._refused = True
            reason = "the audit log cannot be written, so the answer is withheld"
            answer = problem(self.scope, 503, reason, self.request_id)
            await answer(self.scope, self._receive, self._send_with_headers)
            return False

    async def _send_with_headers(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = list(message.get("headers", ()))
            present = {name for name, _ in headers}  # ASGI has names in lower case
            added = [pair for pair in _ENCODED_HEADERS if pair[0] not in present]
            message["headers"] = [*headers, *added, (b"x-request-id", self.request_id.encode())]
        await self._send(message)
