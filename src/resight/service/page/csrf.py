"""The token that every form of the page carries."""

import hmac
from typing import Final

from fastapi import Depends, Request

from resight.service.errors import ServiceError
from resight.service.security.principal import Principal

FIELD: Final = "token"


async def _require_token(request: Request) -> None:
    """Refuse a form that no page of this session has shown.

    Raises:
        ServiceError: the token is absent or another one (403).
    """
    principal: Principal = request.state.principal
    if principal.form_token is None:
        return  # the key was in a header, which no other site's form can send
    await require_equal(request, principal.form_token)


async def require_equal(request: Request, expected: str) -> None:
    """Check the token of a form.

    Raises:
        ServiceError: the token is absent or another one (403).
    """
    form = await request.form()
    sent = form.get(FIELD)
    if not (isinstance(sent, str) and hmac.compare_digest(sent.encode("utf-8", "replace"), expected.encode())):
        raise ServiceError(403, "the form is not of this session: reload the page and try again")


FormToken = Depends(_require_token)
