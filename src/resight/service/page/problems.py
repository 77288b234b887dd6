"""Refused requests of the page: one sentence as HTML, for a browser or for htmx."""

from typing import Any, Final
from urllib.parse import quote

from fastapi.responses import HTMLResponse
from starlette.datastructures import Headers

from resight.service.page.render import PAGE_HEADERS, environment

_TITLES: Final = {
    401: "Sign in to continue", 403: "Not allowed", 404: "Not here", 409: "Not now", 413: "Too large",
    422: "Please check the input", 429: "Too many requests", 503: "Busy",
}  # fmt: skip


def wants_page(scope: Any) -> bool:
    """Return whether a browser sends the request, and it is not for the API."""
    path: str = scope["path"]
    return not path.startswith(("/v1/", "/mcp")) and "text/html" in Headers(scope=scope).get("accept", "")


def problem_page(scope: Any, status: int, detail: str, request_id: str) -> HTMLResponse:
    """Return the answer to a request that is refused: a page, or for htmx the content of the page's notice."""
    is_part = Headers(scope=scope).get("hx-request") == "true"
    path = quote(scope["path"]) if scope["method"] == "GET" else "/"
    values = {
        "title": _TITLES.get(status, "This did not work"), "detail": detail[:1].upper() + detail[1:], "status": status,
        "request_id": request_id, "sign_in": f"/sign-in?next={path}",
    }  # fmt: skip
    text = environment().get_template("notice.html" if is_part else "problem.html").render(values)
    headers = dict(PAGE_HEADERS)
    if is_part:
        headers.update({"HX-Retarget": "#notice", "HX-Reswap": "innerHTML"})
    if status == 401:
        headers["HX-Redirect" if is_part else "Refresh"] = "/sign-in" if is_part else f"0; url={values['sign_in']}"
    return HTMLResponse(text, status, headers)
