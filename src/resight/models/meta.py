"""Networks without memory: on the meta device, where a tensor has a shape and no values."""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

# What draws initial weights. On the meta device torch computes some of these in Python, for nothing: they took nine
# tenths of the time to build a vision transformer there.
_DRAWS = frozenset({Tensor.normal_, Tensor.uniform_, Tensor.erfinv_, Tensor.mul_, Tensor.add_, Tensor.clamp_})


class _WithoutDraws(TorchFunctionMode):
    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func in _DRAWS and args[0].is_meta:
            return args[0]
        return func(*args, **(kwargs or {}))


@contextmanager
def on_meta() -> Generator[None]:
    """Build networks on the meta device: only the names, shapes and types of their tensors are right."""
    with torch.device("meta"), _WithoutDraws():
        yield
