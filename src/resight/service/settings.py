"""The settings of the service: every one is a flag of `resight serve`, and an environment variable `RESIGHT_...`."""

import json
import os
from collections.abc import Mapping
from functools import cached_property
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final, Literal, get_origin

from pydantic import Field, ValidationError

from resight.config.section import Section
from resight.config.sections import Precision
from resight.errors import ConfigError

PREFIX: Final = "RESIGHT_"
LOOPBACK_NAMES: Final = ("localhost", "127.0.0.1", "::1")
_ANY_ADDRESS: Final = ("0.0.0.0", "::", "")


class ServiceSettings(Section):
    """How a service listens, what it accepts, and what it stores."""

    model: Path | None = None
    """The model folder. None: the model folder that the gallery names."""
    gallery: str | None = None
    """The gallery: FOLDER, exact:FOLDER, postgresql://USER@HOST/DATABASE?gallery=NAME, or qdrant://HOST:PORT/NAME. It
    is created if it does not exist and a model is given."""
    host: str = "127.0.0.1"
    """The address to listen on. Another one than this machine's own (127.0.0.1, ::1) requires keys."""
    port: int = Field(8000, ge=0, le=65535)
    """The port to listen on; 0 takes a free one, which the first log line names."""
    state: Path | None = None
    """Folder of the keys (`keys.json`) and of the audit log (`audit.jsonl`). None: no keys, and audit lines are part of
    the log."""
    allowed_hosts: tuple[str, ...] = ()
    """Names in the Host header that are accepted besides the address itself, without ports."""
    allowed_origins: tuple[str, ...] = ()
    """Origins of other web pages whose requests are accepted, such as https://example.org."""
    thumbnails: bool = True
    """Store a small JPEG of each picture that is added."""
    retention_days: float | None = Field(None, gt=0)
    """Remove records that are older than this, once an hour. None: never."""
    max_body_megabytes: float = Field(32.0, gt=0, le=4096)
    """Largest body of a request."""
    max_megapixels: float = Field(25.0, gt=0)
    """Largest picture."""
    max_images: int = Field(16, ge=1)
    """Largest number of pictures in one request."""
    max_queue: int = Field(256, ge=1)
    """Pictures that wait for the model; when the queue is full, a request is refused with status 503."""
    requests_per_minute: float | None = Field(6000.0, gt=0)
    """Requests of one key, or of one address where there are no keys. None: no limit."""
    request_seconds: float = Field(30.0, gt=0)
    """Longest time for one request."""
    drain_seconds: float = Field(30.0, gt=0)
    """After SIGTERM, longest time for the requests that were accepted before."""
    decoders: int | None = Field(None, ge=1)
    """Processes that decode pictures. None: one for each core, at most 4."""
    batch_size: int | None = Field(None, ge=1)
    """Pictures that the model embeds at once. None: as the model card says."""
    device: str = "auto"
    """`cpu`, `cuda`, `cuda:1`, `mps`, or `auto`."""
    precision: Precision = "auto"
    """Arithmetic of the matrix products; `auto` is measured on this machine."""
    prior: float = Field(0.5, gt=0, lt=1)
    """Probability, before a comparison, that two pictures are of the same identity."""
    mcp: Literal["off", "read", "write"] = "off"
    """Tools for agents at /mcp: none; search, compare and time line; or assignment and undo too."""

    @cached_property
    def is_loopback(self) -> bool:
        """Whether only programs of this machine can connect."""
        if self.host in LOOPBACK_NAMES:
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False

    @cached_property
    def hosts(self) -> frozenset[str]:
        """The names in the Host header that are accepted, in lower case and without ports."""
        bound = {self.host} if self.host not in _ANY_ADDRESS else set[str]()
        names = bound | set(self.allowed_hosts) | (set(LOOPBACK_NAMES) if self.is_loopback else set[str]())
        return frozenset(name.lower() for name in names)

    def require_safe(self, has_api_keys: bool) -> None:
        """Check that other machines cannot use the service without a key.

        Raises:
            ConfigError: the address is not of this machine alone, and there are no keys or no names of the host.
        """
        if self.is_loopback:
            return
        if not has_api_keys:
            raise ConfigError(
                f"other machines can reach {self.host}, so keys are required: create one with resight keys create "
                "STATE --role admin, and give --state STATE"
            )
        if not self.hosts:
            raise ConfigError(
                f"{self.host or 'the empty address'} is every address of this machine: give the names that clients "
                "use in the Host header with --allowed-hosts"
            )


def settings_from_environment(environment: Mapping[str, str] = os.environ) -> ServiceSettings:
    """Read the settings from variables `RESIGHT_` and a field's name in capitals; the others have their defaults.

    A list is written with commas. An empty variable is ignored, as if it were not set.

    Raises:
        ConfigError: a value is invalid; the text names the variable.
    """
    values = dict[str, Any]()
    for name, field in ServiceSettings.model_fields.items():
        text = environment.get(PREFIX + name.upper(), "")
        if not text:
            continue
        is_list = get_origin(field.annotation) is tuple
        values[name] = tuple(part.strip() for part in text.split(",")) if is_list else text
    try:
        return ServiceSettings.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        variable = PREFIX + str(first["loc"][0]).upper()
        raise ConfigError(f"the environment variable {variable} is invalid: {first['msg']}") from error


def public_settings(settings: ServiceSettings) -> dict[str, Any]:
    """Return the settings for the admin page and the first log line: without the gallery's URL, which may have a
    password, and without paths."""
    return json.loads(settings.model_dump_json(exclude={"gallery", "model", "state"}))
