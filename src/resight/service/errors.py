"""Errors that an answer reports: one sentence, a status, and never a traceback."""

from typing import Final


class ServiceError(Exception):
    """A request that is refused.

    Args:
        status: of HTTP.
        reason: one sentence.
        retry_after: seconds after which the client may try again.
    """

    def __init__(self, status: int, reason: str, retry_after: int | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.headers: dict[str, str] = {} if retry_after is None else {"Retry-After": str(retry_after)}


RETRY_SECONDS: Final = 1


def overloaded(what: str) -> ServiceError:
    """Return the error for a queue that is full."""
    return ServiceError(503, f"{what}: try again later", RETRY_SECONDS)


def no_record(record_id: str) -> ServiceError:
    """Return the error for a record that does not exist."""
    return ServiceError(404, f"there is no record {record_id!r:.80} in the gallery")
