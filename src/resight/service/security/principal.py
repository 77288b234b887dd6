"""Who sends a request."""

from dataclasses import dataclass

from resight.service.security.keys import ROLES, Role


@dataclass(frozen=True)
class Principal:
    """The caller of a route."""

    key: str
    """Id of the key; `anonymous` where no keys are required, `public` on a route that needs none."""
    role: Role | None
    form_token: str | None = None
    """The token that forms of the page carry; None where the key was in a header."""

    def may(self, role: Role) -> bool:
        """Return whether the caller's role includes another role."""
        return self.role is not None and ROLES.index(self.role) >= ROLES.index(role)
