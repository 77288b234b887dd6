"""The client of the Hub, `huggingface_hub`, and what it raises in one sentence each."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, Final

from resight.errors import CheckpointError, ResightError, StorageError

USER: Final[dict[str, Any]] = {"library_name": "resight"}
"""What the client says to the Hub of who uses it."""
_LOG_IN: Final = "log in with `hf auth login`, or set HF_TOKEN"


@contextmanager
def downloading(address: object) -> Generator[None]:
    """Raise what the client raises in a download as a `CheckpointError` of one sentence.

    Args:
        address: what is downloaded, for the sentence.
    """
    try:
        yield
    except ResightError:
        raise
    except Exception as error:  # the client raises exceptions of many types, and those of its HTTP library
        raise CheckpointError(_reason(error, address)) from error


@contextmanager
def uploading(address: object) -> Generator[None]:
    """Raise what the client raises in an upload as a `StorageError` of one sentence.

    Args:
        address: where the files go, for the sentence.
    """
    try:
        yield
    except ResightError:
        raise
    except Exception as error:
        raise StorageError(f"nothing was published: {_reason(error, address, 'write')}") from error


def _reason(error: Exception, address: object, access: str = "read") -> str:
    from huggingface_hub import errors

    causes = _causes(error)
    kinds = (errors.GatedRepoError, errors.RevisionNotFoundError, errors.RepositoryNotFoundError)
    known = next((cause for kind in kinds for cause in causes if isinstance(cause, kind)), None)
    if isinstance(known, errors.GatedRepoError):
        return f"{address} is gated: accept its terms on its page of the Hub, then {_LOG_IN}"
    if isinstance(known, errors.RevisionNotFoundError):
        return f"{address} has no such revision: give a branch, tag or commit of the repository"
    if isinstance(known, errors.RepositoryNotFoundError):
        return f"the Hub has no repository {address}, or it is private: check the name, or {_LOG_IN}"
    status = next((code for cause in causes if (code := _status(cause)) is not None), None)
    if status in (401, 403):
        return f"the Hub does not permit to {access} {address} ({status}): {_LOG_IN} with a token that may {access} it"
    if status is not None:
        return f"the Hub answered with status {status} for {address}: try again later"
    if any(isinstance(cause, errors.OfflineModeIsEnabled) for cause in causes):
        return f"{address} is not in the cache of this machine, and HF_HUB_OFFLINE forbids to ask the Hub"
    if any(isinstance(cause, ConnectionError) or _is_of_transport(cause) for cause in causes):
        where = "" if access == "write" else ", and is not in the cache of this machine"
        return f"the Hub cannot be reached for {address}{where}: check the connection (or HF_ENDPOINT)"
    lines = str(causes[-1]).splitlines() or [type(error).__name__]
    return f"the client of the Hub failed for {address}: {lines[0][:200]}"


def _causes(error: BaseException | None) -> list[BaseException]:
    """The exception and those that led to it; the client wraps most in others."""
    causes = list[BaseException]()
    while error is not None and error not in causes:
        causes.append(error)
        error = error.__cause__ or error.__context__
    return causes


def _status(error: BaseException) -> int | None:
    """The HTTP status of an answer that was an error."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) and status >= 400 else None


def _is_of_transport(error: BaseException) -> bool:
    """Whether the HTTP library, of whichever name, got no answer."""
    return any(kind.__name__ in ("TransportError", "RequestException") for kind in type(error).__mro__)
