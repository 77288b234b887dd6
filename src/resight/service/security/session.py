"""Sessions of the page: a cookie that stands for a key, and the tokens that forms carry against other sites.

A session is not stored: the cookie is signed. All processes that share the folder of the keys share the secret that
signs, so a session is valid in each of them; it ends with its key, or after twelve hours.
"""

import hashlib
import hmac
import secrets
import time
from pathlib import Path
from typing import Final

from starlette.datastructures import Headers
from starlette.requests import cookie_parser

from resight.errors import ConfigError
from resight.files import make_folder, replacing
from resight.service.security.keys import Key, KeyStore

COOKIE: Final = "resight_session"
VISIT: Final = "resight_visit"
"""Cookie of the sign-in form, whose token is bound to it."""
SESSION_SECONDS: Final = 12 * 3600
SECRET_FILE: Final = "session.secret"
_SECRET_BYTES: Final = 32


class Sessions:
    """Makes and checks sessions and form tokens.

    Args:
        folder: that has or gets the file `session.secret`, readable by its owner alone; None for a secret that ends
            with the process.

    Raises:
        ConfigError: the file has another length.
        StorageError: the file cannot be written.
    """

    def __init__(self, folder: Path | None) -> None:
        self._secret = secrets.token_bytes(_SECRET_BYTES) if folder is None else _read_secret(folder)

    def create(self, key: Key, now: float | None = None) -> str:
        """Return the cookie of a new session of a key; `now` is Unix time in seconds."""
        expires = int((time.time() if now is None else now) + SESSION_SECONDS)
        content = f"{key.id}.{expires}.{secrets.token_hex(8)}"
        return f"{content}.{self._sign('session', content, key.sha256)}"

    def find(self, cookie: str, key_store: KeyStore) -> Key | None:
        """Return the key of a cookie; None if the cookie is invalid or expired, or its key is."""
        content, _, signature = cookie.rpartition(".")
        key_id, _, rest = content.partition(".")
        expires = rest.partition(".")[0]
        key = next((key for key in key_store.entries() if key.id == key_id), None)
        if key is None or key.is_expired():
            return None
        expected = self._sign("session", content, key.sha256)
        if not hmac.compare_digest(expected.encode(), signature.encode("utf-8", "replace")):
            return None
        return key if int(expires) > time.time() else None

    def form_token(self, session: str) -> str:
        """Return the token that the forms of a session carry; another site can neither read nor compute it."""
        return self._sign("form", session)

    def _sign(self, *parts: str) -> str:
        text = "\n".join(parts).encode("utf-8", "replace")
        return hmac.new(self._secret, text, hashlib.sha256).hexdigest()


def read_cookie(headers: Headers, name: str) -> str | None:
    """Return the value of a cookie of a request; None if it has none."""
    return cookie_parser(headers.get("cookie", "")).get(name)


def _read_secret(folder: Path) -> bytes:
    """The secret in a folder; it is made where there is none."""
    file = folder / SECRET_FILE
    if not file.exists():
        make_folder(folder)
        with replacing(file, private=True) as stream:
            stream.write(secrets.token_bytes(_SECRET_BYTES))
    secret = file.read_bytes()
    if len(secret) != _SECRET_BYTES:
        raise ConfigError(f"{file} is corrupt: remove it, and a new one is made")
    return secret
