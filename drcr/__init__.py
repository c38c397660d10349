"""DRCR Net for spectral reconstruction: an RGB image in, a 31-band hyperspectral cube (400-700 nm) out.

What most programs need is here, imported when it is first used::

    from drcr import load_model, read_image, reconstruct
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from drcr.checkpoint import load_model
    from drcr.formats.mat import read_cube, write_cube
    from drcr.images import read_image
    from drcr.inference import Reconstructor, reconstruct
    from drcr.model import DRCR

_PLACES = {
    "DRCR": "drcr.model",
    "Reconstructor": "drcr.inference",
    "load_model": "drcr.checkpoint",
    "read_cube": "drcr.formats.mat",
    "read_image": "drcr.images",
    "reconstruct": "drcr.inference",
    "write_cube": "drcr.formats.mat",
}
__all__ = ["DRCR", "Reconstructor", "load_model", "read_cube", "read_image", "reconstruct", "write_cube"]


def __getattr__(name: str) -> Any:
    # PyTorch takes a second to import: not before it is used
    if name in _PLACES:
        return getattr(import_module(_PLACES[name]), name)
    raise AttributeError(f"module 'drcr' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
