"""Sign in with a key, and sign out."""

import secrets
from typing import Annotated

from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import RedirectResponse, Response

from resight.service.page.csrf import FormToken, require_equal
from resight.service.page.forms import PageForm, SignInForm
from resight.service.page.render import page
from resight.service.page.routes.changes import local_path
from resight.service.routes.dependencies import ServiceOf
from resight.service.security.session import COOKIE, SESSION_SECONDS, VISIT, read_cookie

router = APIRouter(include_in_schema=False)


@router.get("/sign-in")
async def sign_in_page(
    request: Request, service: ServiceOf, address: Annotated[str, Query(alias="next", max_length=2000)] = "/"
) -> Response:
    """Show the sign-in form."""
    return await _form(request, service, local_path(address), None)


@router.post("/sign-in")
async def sign_in(request: Request, service: ServiceOf, form: Annotated[SignInForm, Form()]) -> Response:
    """Turn a key into a session: a cookie that no script can read and no other site can send."""
    visit = read_cookie(request.headers, VISIT) or ""
    await require_equal(request, service.sessions.form_token(f"visit {visit}"))
    key = service.key_store.find(form.key.strip())
    if key is None:
        return await _form(request, service, local_path(form.next), "This key is not valid, or it has expired.")
    answer = RedirectResponse(local_path(form.next), 303)
    _set_cookie(request, answer, COOKIE, service.sessions.create(key), SESSION_SECONDS)
    answer.delete_cookie(VISIT, path="/")
    return answer


@router.post("/sign-out", dependencies=[FormToken])
async def sign_out(_: Annotated[PageForm, Form()]) -> Response:
    """Forget the session in this browser."""
    answer = RedirectResponse("/sign-in", 303)
    answer.delete_cookie(COOKIE, path="/")
    return answer


async def _form(request: Request, service: ServiceOf, address: str, error: str | None) -> Response:
    visit = secrets.token_urlsafe(24)
    token = service.sessions.form_token(f"visit {visit}")
    status = 200 if error is None else 401
    answer = await page(request, "sign_in.html", status, token=token, next=address, error=error)
    _set_cookie(request, answer, VISIT, visit, 3600)
    return answer


def _set_cookie(request: Request, answer: Response, name: str, value: str, seconds: int) -> None:
    is_encrypted = request.headers.get("origin", "").startswith("https:")  # a proxy with TLS is in front of us
    answer.set_cookie(name, value, seconds, path="/", secure=is_encrypted, httponly=True, samesite="strict")
