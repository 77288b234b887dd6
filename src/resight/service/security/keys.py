"""Keys of the service: a role and an expiry date each, stored as hashes.

A key is `resight_ID_SECRET`. The secret has 256 random bits, so that one SHA-256 is enough: there is nothing to guess.
"""

import hashlib
import hmac
import secrets
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import RLock
from typing import Final, Literal

from pydantic import Field, TypeAdapter

from resight.config.section import Section
from resight.errors import ConfigError
from resight.files import make_folder, replacing

Role = Literal["read", "write", "admin"]
ROLES: Final[tuple[Role, ...]] = ("read", "write", "admin")
"""Each role may do what those before it may do."""
KEY_FILE: Final = "keys.json"
_PREFIX: Final = "resight"


class Key(Section):
    """A key as it is stored: the secret cannot be computed from it."""

    id: str
    role: Role
    created: datetime
    expires: datetime | None = None
    """None: never."""
    note: str = Field("", max_length=200)
    """What the key is for; it is printed in lists and never logged."""
    sha256: str = Field(repr=False)
    """Of the whole key, in hexadecimal digits."""

    def is_expired(self, now: datetime | None = None) -> bool:
        """Return whether the key is not valid any more."""
        return self.expires is not None and self.expires <= (now or datetime.now(UTC))

    def may(self, role: Role) -> bool:
        """Return whether the key's role includes another role."""
        return ROLES.index(self.role) >= ROLES.index(role)


_STORED: Final = TypeAdapter(dict[str, Key])


class KeyStore:
    """The keys in a folder; changes of the file by other processes are seen at once.

    Args:
        folder: that has or gets the file `keys.json`; None for a store without keys.

    Raises:
        ConfigError: the file is corrupt.
    """

    def __init__(self, folder: Path | None) -> None:
        self.file = None if folder is None else folder / KEY_FILE
        self._lock = RLock()
        self._by_id: dict[str, Key] = {}
        self._read_at: tuple[int, int, int] | None = None
        self.entries()

    def __len__(self) -> int:
        return len(self.entries())

    def entries(self) -> list[Key]:
        """Return all keys, expired ones too, oldest first."""
        with self._lock:
            self._refresh()
            return list(self._by_id.values())

    def create(self, role: Role, days: float | None = None, note: str = "") -> tuple[str, Key]:
        """Create a key.

        Args:
            role: what it may do.
            days: until it expires; None for never.
            note: what it is for.

        Returns:
            the key's text, which is not stored and cannot be shown again; and the key as it is stored.

        Raises:
            ConfigError: the store has no folder, the days are not more than 0, or the note is too long.
            StorageError: the file cannot be written.
        """
        if days is not None and not 0 < days <= 36_500:
            raise ConfigError(f"a key is valid for more than 0 and at most 36500 days, not {days:g}")
        if len(note) > 200:
            raise ConfigError("the note of a key has at most 200 characters")
        key_id = secrets.token_hex(4)
        text = f"{_PREFIX}_{key_id}_{secrets.token_urlsafe(32)}"
        now = datetime.now(UTC).replace(microsecond=0)
        expires = None if days is None else now + timedelta(days=days)
        key = Key(id=key_id, role=role, created=now, expires=expires, note=note, sha256=_digest(text))
        with self._lock:
            self._refresh()
            self._write(self._by_id | {key_id: key})
        return text, key

    def revoke(self, key_id: str) -> Key:
        """Delete a key, and return it.

        Raises:
            ConfigError: there is no such key.
        """
        with self._lock:
            self._refresh()
            if key_id not in self._by_id:
                raise ConfigError(f"there is no key {key_id!r:.60}")
            revoked = self._by_id[key_id]
            self._write({name: key for name, key in self._by_id.items() if name != key_id})
            return revoked

    def find(self, text: str) -> Key | None:
        """Return the key of a text; None if it is unknown or expired. The comparison takes the same time for each."""
        digest = _digest(text)
        match: Key | None = None
        for key in self.entries():
            if hmac.compare_digest(key.sha256, digest) and not key.is_expired():
                match = key
        return match

    def _refresh(self) -> None:
        if self.file is None:
            return
        try:
            status = self.file.stat()
            version = (status.st_mtime_ns, status.st_size, status.st_ino)
            if version != self._read_at:
                self._by_id = _STORED.validate_json(self.file.read_bytes())
                self._read_at = version
        except FileNotFoundError:
            self._by_id = {}
            self._read_at = None
        except ValueError as error:
            raise ConfigError(f"{self.file} is corrupt: it does not contain keys") from error

    def _write(self, by_id: dict[str, Key]) -> None:
        if self.file is None:
            raise ConfigError("the service has no folder for keys: start it with --state FOLDER")
        make_folder(self.file.parent)
        with replacing(self.file, private=True) as file:
            file.write(_STORED.dump_json(by_id, indent=2))
        self._refresh()


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
