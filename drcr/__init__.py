"""DRCR Net for spectral reconstruction: an RGB image in, a 31-band hyperspectral cube (400-700 nm) out.

`from drcr import DRCR, load_model, reconstruct` is all that most programs need.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from drcr.checkpoint import load_model
    from drcr.model import DRCR
    from drcr.reconstruct import reconstruct

__all__ = ["DRCR", "load_model", "reconstruct"]


def __getattr__(name: str) -> Any:
    # PyTorch takes a second to import: not before it is used
    if name == "DRCR":
        return import_module("drcr.model").DRCR
    if name == "load_model":
        return import_module("drcr.checkpoint").load_model
    if name == "reconstruct":
        return import_module("drcr.reconstruct")  # a module that can be called: it has the name of its function
    raise AttributeError(f"module 'drcr' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
