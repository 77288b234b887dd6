"""`resight serve`."""

from __future__ import annotations

from resight.cli.parsing import parse
from resight.service.settings import ServiceSettings, settings_from_environment

_PROGRAM = "resight serve"


def run(arguments: list[str]) -> None:
    """Serve a gallery until SIGTERM or Ctrl+C; flags win over environment variables."""
    words = ["--model", *arguments] if arguments and not arguments[0].startswith("-") else arguments
    settings = parse(ServiceSettings, words, _PROGRAM, settings_from_environment())
    from resight.service.server import serve

    serve(settings)
