"""The guard in front of the application: what every request must pass before anything of it is read.

In this order: the Host and Origin headers, the table of permissions, the key and its role, the rate, the size of the
body, and the time. Afterwards the security headers, the metrics, the log and the audit log.
"""

import asyncio
import logging
import time
from functools import partial
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from resight.service.errors import ServiceError
from resight.service.http.exchange import Exchange
from resight.service.http.limits import RateLimiter
from resight.service.http.replay import Replay
from resight.service.logs import LOGGER, log
from resight.service.security.permissions import Permission, allowed_methods, find_permission
from resight.service.security.principal import Principal
from resight.service.security.session import COOKIE, read_cookie
from resight.service.work.core import Service


class Guard:
    """Checks requests, and reports them.

    Args:
        app: answers the requests that pass.
        service: has the settings, the keys and the logs.
    """

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service
        self._replay = Replay(app)
        self._limiter = RateLimiter(service.settings.requests_per_minute)
        self._max_body = int(service.settings.max_body_megabytes * 1e6)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return  # there are no WebSockets: the server refuses them
        exchange = Exchange(scope, receive, send, self._max_body)
        try:
            permission = self._require_route(exchange)
            principal = self._authorize(exchange, permission)
            await self._answer(exchange, permission, principal)
        except ServiceError as error:
            await exchange.refuse(error.status, error.reason, error.headers)
        except Exception as error:  # the application answers its own errors: this is one of the guard
            LOGGER.error("unexpected error", exc_info=error, extra={"fields": {"request": exchange.request_id}})
            await exchange.refuse(500, "the service has a fault; its log says where")
        finally:
            self._report(exchange)

    def _require_route(self, exchange: Exchange) -> Permission:
        """Check the headers against DNS rebinding and requests from other sites, and find the row of the table."""
        settings = self._service.settings
        host = exchange.headers.get("host", "")
        if _host_name(host) not in settings.hosts:
            raise ServiceError(421, "the service does not answer to this name in the Host header")
        origin = exchange.headers.get("origin")
        if origin is not None and not (origin in settings.allowed_origins or urlsplit(origin).netloc == host):
            raise ServiceError(403, "requests from pages of other origins are not accepted")
        if origin is None and exchange.headers.get("sec-fetch-site") == "cross-site":
            raise ServiceError(403, "requests from pages of other sites are not accepted")
        path = exchange.scope["path"]
        permission = find_permission(exchange.scope["method"], path)
        if permission is not None:
            exchange.route = permission.path
            if permission.audited:
                exchange.audit = partial(self._audit, exchange)
            return permission
        methods = allowed_methods(path)
        if not methods:
            raise ServiceError(404, "there is no such route")
        refused = ServiceError(405, f"this route takes {', '.join(methods)}")
        refused.headers["Allow"] = ", ".join(methods)
        raise refused

    def _authorize(self, exchange: Exchange, permission: Permission) -> Principal:
        """Find the caller and check the role and the rate."""
        if permission.access == "public":
            self._require_rate(exchange.address)
            return Principal("public", None)
        principal = self._principal(exchange, permission)
        exchange.key = principal.key
        if not principal.may(permission.access):
            raise ServiceError(403, f"this route requires the role {permission.access}, and the key has not")
        self._require_rate(principal.key if principal.key != "anonymous" else exchange.address)
        return principal

    def _principal(self, exchange: Exchange, permission: Permission) -> Principal:
        scheme, _, text = exchange.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and text:
            key = self._service.key_store.find(text.strip())
            if key is not None:
                return Principal(key.id, key.role)
        elif not self._service.requires_key:
            return Principal("anonymous", "admin", self._service.sessions.form_token("anonymous"))
        elif permission.is_page and (cookie := read_cookie(exchange.headers, COOKIE)):
            key = self._service.sessions.find(cookie, self._service.key_store)
            if key is not None:
                return Principal(key.id, key.role, self._service.sessions.form_token(cookie))
        self._require_rate(exchange.address)  # a key cannot be guessed faster than the rate
        refused = ServiceError(401, "a valid key is required: send the header Authorization: Bearer KEY")
        refused.headers["WWW-Authenticate"] = "Bearer"
        raise refused

    def _require_rate(self, caller: str) -> None:
        seconds = self._limiter.seconds_until_allowed(caller)
        if seconds:
            raise ServiceError(429, "too many requests: wait a little", max(1, round(seconds)))

    async def _answer(self, exchange: Exchange, permission: Permission, principal: Principal) -> None:
        """Let the application answer, within the limits of size and time."""
        exchange.require_size()
        exchange.state.update(principal=principal, counts=exchange.counts)
        repeated = exchange.headers.get("idempotency-key")
        seconds = self._service.settings.request_seconds
        arguments = (exchange.scope, exchange.receive, exchange.send)
        try:
            async with asyncio.timeout(seconds):
                if repeated and exchange.is_repeatable(permission):
                    name = f"{principal.key} {permission.method} {exchange.scope['path']} {repeated}"
                    await self._replay(*arguments, name)
                else:
                    await self._app(*arguments)
        except TimeoutError:
            if exchange.body_complete:
                await exchange.refuse(504, f"the answer took longer than {seconds:g} seconds")
            else:
                await exchange.refuse(408, f"the request did not arrive within {seconds:g} seconds")

    def _audit(self, exchange: Exchange, status: int) -> None:
        method = exchange.scope["method"]
        self._service.audit.write(exchange.key, method, exchange.route, status, exchange.counts)

    def _report(self, exchange: Exchange) -> None:
        seconds = time.perf_counter() - exchange.began
        method = exchange.scope["method"] if exchange.route != "none" else "none"
        self._service.metrics.observe_request(method, exchange.route, exchange.status, seconds)
        log(
            "request", logging.INFO, request=exchange.request_id, key=exchange.key, method=method,
            route=exchange.route, status=exchange.status, milliseconds=round(1000 * seconds, 1), **exchange.counts,
        )  # fmt: skip


def _host_name(host: str) -> str:
    """The name in a Host header, in lower case and without the port."""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""
