"""`resight keys`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from tyro.conf import Positional

from resight.cli.output import Output, row_table, show
from resight.cli.parsing import parse_action


@dataclass(frozen=True)
class Create:
    """Create a key and print it. It is stored as a hash, so that it cannot be printed again."""

    state: Positional[Path]
    """The folder that `resight serve --state` is given."""
    role: Literal["read", "write", "admin"] = "read"
    """What the key may do: search; also add, assign and remove records; also manage keys."""
    days: float | None = None
    """Days until the key expires. None: never."""
    note: str = ""
    """What the key is for; it is printed in lists."""


@dataclass(frozen=True)
class List(Output):
    """List the keys, without their secrets."""

    state: Positional[Path]
    """The folder that `resight serve --state` is given."""


@dataclass(frozen=True)
class Revoke:
    """Delete a key; a running service does not accept it from then on."""

    state: Positional[Path]
    """The folder that `resight serve --state` is given."""
    id: Positional[str]
    """Id of the key, as `resight keys list` prints it."""


_ACTIONS: Final[dict[str, type]] = {"create": Create, "list": List, "revoke": Revoke}


def run(arguments: list[str]) -> None:
    """Create, list or revoke keys of the service."""
    options = parse_action(_ACTIONS, arguments, "resight keys")
    from resight.service.security.keys import KeyStore

    store = KeyStore(options.state)
    if isinstance(options, Create):
        print(store.create(options.role, options.days, options.note)[0])
    elif isinstance(options, Revoke):
        print(f"revoked {store.revoke(options.id).id}")
    else:
        rows = [key.model_dump(mode="json", exclude={"sha256"}) for key in store.entries()]
        show(options, {"keys": rows}, row_table("keys", rows) if rows else "no keys")
