"""URLs of galleries on servers: taken apart, and shown without the secrets that they may contain."""

import re
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit

from resight.errors import GalleryError

_PASSWORD: Final = re.compile(r"^([^:]*:(?://[^:@]*:|(?!//))).*@", re.DOTALL)
"""Before it: `SCHEME://USER:`, or what is before the first colon of a text without `//`."""
_PARAMETER: Final = re.compile(r"([?&])([^=&#]*)=([^&#]*)")
_SECRET: Final = re.compile("password|secret|key|token", re.IGNORECASE)


def shown_url(url: str) -> str:  # words: ok
    """Return a gallery's URL for messages: `***` stands for its password, and for any other secret in it.

    Example:
        >>> shown_url("postgresql://ann:pearl@db/people?gallery=hall")
        'postgresql://ann:***@db/people?gallery=hall'
    """
    scheme, colon, _ = url.partition(":")
    if not colon or scheme == "exact":
        return url  # a folder
    return _PARAMETER.sub(_hide_secret, _PASSWORD.sub(r"\1***@", url))


def split_url(url: str, form: str) -> SplitResult:
    """Take the URL of a gallery on a server apart.

    Args:
        url: of the gallery.
        form: what it should look like, for the error text.

    Raises:
        GalleryError: it has not this form, or a character of its user or password is not percent-encoded.
    """
    try:
        parts = urlsplit(url)
    except ValueError:  # an address of IPv6 without its bracket
        raise wrong_form(url, form) from None
    not_encoded = "#" in url or url.count("@") > ("@" in parts.netloc) or any(ord(letter) < 32 for letter in url)
    if not_encoded or not url.startswith(f"{parts.scheme}://"):
        raise wrong_form(url, form)
    return parts


def wrong_form(url: str, form: str) -> GalleryError:
    """Return the error for a URL that has not the form."""
    encoding = "; the characters @ : / ? # % of a user, a password or a name are written as %40 %3A %2F %3F %23 %25"
    return GalleryError(f"{shown_url(url)} is not of the form {form}{encoding if 'USER@' in form else ''}")


def _hide_secret(parameter: re.Match[str]) -> str:
    secret = _SECRET.search(unquote(parameter[2]))
    return f"{parameter[1]}{parameter[2]}=***" if secret else parameter[0]
