"""Requests that are repeated with the same `Idempotency-Key` get the first answer again, and nothing is done twice.

Answers are remembered in this process, for a day. Records are safe to repeat for longer, and in every process: their
ids follow from the key (see `resight.service.work.record_ids.record_id_of`).
"""

import asyncio
import hashlib
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from resight.service.errors import ServiceError

_SECONDS: Final = 86_400
_MAX_ANSWERS: Final = 10_000
_MAX_BYTES: Final = 1 << 20  # of an answer that is remembered; larger ones are computed again


@dataclass
class _Answer:
    """The answer to the first request with a key."""

    at: float
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    body_digest: bytes | None = None
    messages: list[Message] = field(default_factory=list[Message])


class Replay:
    """Answers the repetitions of a request with the answer to the first one.

    Args:
        app: answers the first one.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._answers: OrderedDict[str, _Answer] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send, name: str) -> None:
        """Answer a request.

        Args:
            scope: of ASGI.
            receive: of ASGI.
            send: of ASGI.
            name: of the request: caller, route and `Idempotency-Key`.

        Raises:
            ServiceError: the key was used for a request with another body (422).
        """
        answer = self._answer(name)
        async with answer.lock:  # a repetition that arrives meanwhile waits
            if answer.messages:
                await self._repeat(answer, receive, send)
                return
            await self._answer_first(answer, scope, receive, send)

    async def _answer_first(self, answer: _Answer, scope: Scope, receive: Receive, send: Send) -> None:
        digest = hashlib.sha256()
        messages = list[Message]()

        async def receive_and_hash() -> Message:
            message = await receive()
            digest.update(message.get("body", b""))
            return message

        async def send_and_collect(message: Message) -> None:
            messages.append(message)
            await send(message)

        await self._app(scope, receive_and_hash, send_and_collect)
        size = sum(len(message.get("body", b"")) for message in messages)
        if messages and messages[0].get("status", 500) < 400 and size <= _MAX_BYTES:
            answer.body_digest = digest.digest()
            answer.messages = messages

    async def _repeat(self, answer: _Answer, receive: Receive, send: Send) -> None:
        digest = hashlib.sha256()
        more = True
        while more:
            message = await receive()
            digest.update(message.get("body", b""))
            more = message.get("more_body", False)
        if digest.digest() != answer.body_digest:
            raise ServiceError(422, "this Idempotency-Key was used for another request: use a new one")
        for message in answer.messages:
            await send(message)

    def _answer(self, name: str) -> _Answer:
        now = time.monotonic()
        while self._answers and (
            len(self._answers) >= _MAX_ANSWERS or now - next(iter(self._answers.values())).at > _SECONDS
        ):
            self._answers.popitem(last=False)
        return self._answers.setdefault(name, _Answer(now))
