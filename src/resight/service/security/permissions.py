"""Who may call which route: the one table. A request that matches no row of it never reaches the application."""

import re
from dataclasses import dataclass, field
from typing import Final, Literal

from starlette.routing import compile_path

from resight.service.security.keys import Role

Access = Literal["public"] | Role


@dataclass(frozen=True)
class Permission:
    """One row of the table."""

    method: str
    path: str
    """As the route declares it; `{name:path}` also matches slashes."""
    access: Access
    """The lowest role that may call it; `public` needs no key."""
    audited: bool = False
    """Whether the audit log has a line for each call."""
    pattern: re.Pattern[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "pattern", compile_path(self.path)[0])

    @property
    def is_page(self) -> bool:
        """Whether the route is of the page, where a cookie stands for the key."""
        return not self.path.startswith(("/v1/", "/mcp"))


PERMISSIONS: Final = (
    Permission("GET", "/v1/health", "public"),
    Permission("GET", "/v1/ready", "public"),
    Permission("GET", "/v1/openapi.json", "read"),
    Permission("GET", "/v1/metrics", "read"),
    Permission("GET", "/v1/model", "read"),
    Permission("GET", "/v1/stats", "read"),
    Permission("POST", "/v1/embed", "read", audited=True),
    Permission("POST", "/v1/search", "read", audited=True),
    Permission("POST", "/v1/compare", "read", audited=True),
    Permission("POST", "/v1/explain", "read", audited=True),
    Permission("POST", "/v1/records", "write"),
    Permission("GET", "/v1/records", "read", audited=True),
    Permission("GET", "/v1/records/{record_id:path}", "read"),
    Permission("DELETE", "/v1/records/{record_id:path}", "write", audited=True),
    Permission("GET", "/v1/similar/{record_id:path}", "read", audited=True),
    Permission("GET", "/v1/thumbnails/{record_id:path}", "read"),
    Permission("GET", "/v1/timeline", "read", audited=True),
    Permission("GET", "/v1/identities", "read"),
    Permission("POST", "/v1/remove", "write", audited=True),
    Permission("POST", "/v1/assign", "write"),
    Permission("POST", "/v1/merge", "write"),
    Permission("POST", "/v1/undo", "write"),
    Permission("POST", "/v1/cluster", "read"),
    Permission("POST", "/v1/cluster/assign", "write"),
    Permission("GET", "/v1/keys", "admin"),
    Permission("POST", "/v1/keys", "admin", audited=True),
    Permission("DELETE", "/v1/keys/{key_id}", "admin", audited=True),
    Permission("GET", "/v1/settings", "admin"),
    Permission("GET", "/v1/audit", "admin"),
    Permission("POST", "/v1/retention", "admin", audited=True),
    Permission("POST", "/mcp", "read", audited=True),
    Permission("GET", "/", "read"),
    Permission("POST", "/search", "read", audited=True),
    Permission("GET", "/similar", "read", audited=True),
    Permission("POST", "/explain", "read", audited=True),
    Permission("GET", "/compare", "read"),
    Permission("POST", "/compare", "read", audited=True),
    Permission("GET", "/thumbnail", "read"),
    Permission("POST", "/add", "write"),
    Permission("GET", "/add/many", "write"),
    Permission("POST", "/add/many", "write"),
    Permission("GET", "/tasks/{task_id}", "read"),
    Permission("GET", "/tasks/{task_id}/events", "read"),
    Permission("GET", "/map", "read", audited=True),
    Permission("POST", "/judge", "write"),
    Permission("POST", "/undo", "write"),
    Permission("GET", "/identities", "read"),
    Permission("GET", "/identity", "read", audited=True),
    Permission("POST", "/identity/assign", "write"),
    Permission("POST", "/identity/merge", "write"),
    Permission("POST", "/identity/remove", "write", audited=True),
    Permission("GET", "/clusters", "read"),
    Permission("POST", "/clusters/confirm", "write"),
    Permission("POST", "/clusters/split", "read"),
    Permission("GET", "/cameras", "read"),
    Permission("GET", "/camera", "read", audited=True),
    Permission("GET", "/admin", "admin"),
    Permission("POST", "/admin/keys", "admin", audited=True),
    Permission("POST", "/admin/keys/revoke", "admin", audited=True),
    Permission("POST", "/admin/retention", "admin", audited=True),
    Permission("GET", "/sign-in", "public"),
    Permission("POST", "/sign-in", "public", audited=True),
    Permission("POST", "/sign-out", "read"),
    Permission("GET", "/static/{name}", "public"),
)


_BY_PATH: Final = {(row.method, row.path): row for row in PERMISSIONS}
"""Most paths have no parameter, and are found without a look at the patterns."""


def find_permission(method: str, path: str) -> Permission | None:
    """Return the row for a request; None if there is none."""
    exact = _BY_PATH.get((method, path))
    return exact or next((row for row in PERMISSIONS if row.method == method and row.pattern.match(path)), None)


def allowed_methods(path: str) -> list[str]:
    """Return the methods that a path has, sorted; an empty list if no row has the path."""
    return sorted({row.method for row in PERMISSIONS if row.pattern.match(path)})
