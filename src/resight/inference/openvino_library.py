"""Import OpenVINO so that it sends no usage statistics.

Importing OpenVINO and converting a model send usage statistics to www.google-analytics.com without asking, by the
package `openvino_telemetry`, which also stores a client id in `~/intel`. Where that package is not installed OpenVINO
uses a stub of its own, which does nothing: that is what it is given here. Nothing is written to the user's settings.
"""

import sys
from collections.abc import Generator
from contextlib import contextmanager
from importlib import import_module
from threading import RLock
from types import ModuleType
from typing import Any, Final

from resight.errors import require_extra

_TELEMETRY: Final = "openvino_telemetry"
_CONVERTER: Final = "openvino.tools.ovc"
_lock: Final = RLock()


@contextmanager
def openvino_library() -> Generator[Any]:
    """Import OpenVINO for a block; during the import and the block it sends nothing and stores no client id.

    Raises:
        ConfigError: OpenVINO is not installed.
    """
    with _lock:
        modules: dict[str, ModuleType | None] = sys.modules  # pyright: ignore[reportAssignmentType]
        was_imported, before = _TELEMETRY in modules, modules.get(_TELEMETRY)
        modules[_TELEMETRY] = None  # an import of it raises ImportError, as if it were not installed
        replaced = list[tuple[ModuleType, Any]]()
        try:
            library = require_extra("openvino", "export")
            replaced = _use_stub()
            yield library
        finally:
            for module, telemetry in replaced:
                vars(module)["tm"] = telemetry
            del modules[_TELEMETRY]
            if was_imported:
                modules[_TELEMETRY] = before


def _use_stub() -> list[tuple[ModuleType, Any]]:
    """Give the stub to modules of the converter that the program imported before; return these and what they had."""
    try:
        stub = import_module(f"{_CONVERTER}.telemetry_stub")
    except ImportError:  # an OpenVINO without the converter, or without telemetry
        return []
    replaced = list[tuple[ModuleType, Any]]()
    for name, module in list(sys.modules.items()):
        if name.startswith(_CONVERTER) and getattr(module, "tm", stub) is not stub:
            replaced.append((module, vars(module)["tm"]))
            vars(module)["tm"] = stub
    return replaced
