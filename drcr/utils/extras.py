"""Packages beyond the six that the five commands need: one line that names the extra where one is missing."""

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager

from drcr.utils.files import DataError

_PACKAGES = {"PIL": "Pillow", "colour": "colour-science", "skimage": "scikit-image"}
"""The packages of modules with another name."""


@contextmanager
def needs(extra: str, what: str) -> Iterator[None]:
    """Within a `with` block, turn a failed import into a DataError that names the extra of pyproject.toml.

    `what` needs the package, such as "FILE: is a HEIC file, which", is what the line begins with.
    """
    try:
        yield
    except ImportError as error:
        module = (error.name or "drcr").split(".")[0]
        if module == "drcr":
            raise  # our own bug
        raise DataError(_line(module, extra, what)) from error


def missing(module: str, extra: str, what: str) -> str | None:
    """Return the line that says what `what` needs if a module is not installed, else None. Imports nothing."""
    return _line(module, extra, what) if importlib.util.find_spec(module) is None else None


def _line(module: str, extra: str, what: str) -> str:
    return f"{what} needs {_PACKAGES.get(module, module)}: pip install 'drcr[{extra}]'"
