"""Read YAML that anyone may have written: plain values only, without aliases, and nested to a limited depth."""

from typing import Any, Final

import yaml

from resight.errors import ConfigError

_MAX_DEPTH: Final = 50


class _Loader(yaml.SafeLoader):
    """Refuses aliases, with which a short text can describe a value of any size, and deep nesting."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not allowed")
        if self.depth == _MAX_DEPTH:
            raise yaml.YAMLError(f"it is nested more than {_MAX_DEPTH} levels deep")
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def parse_yaml(text: str, name: str) -> Any:
    """Parse YAML.

    Args:
        text: the YAML.
        name: of the file or option, for the error text.

    Raises:
        ConfigError: it is no YAML, has an alias, is nested too deep, or has a value of another type than plain ones.
    """
    try:
        return yaml.load(text, _Loader)
    except Exception as error:  # on some texts PyYAML raises ValueError, IndexError and others
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(f"{name} cannot be read as YAML: {reason[:300]}") from error
