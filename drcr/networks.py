"""Which network: DRCR Net, another by its name, or a class in a file of the user's.

A network takes images (N, 3, H, W), RGB divided by its largest value, and returns cubes (N, bands, H, W). DRCR Net is
used as it is; others are wrapped in `OtherNetwork`. A checkpoint stores the name, the arguments and, for a file, its
SHA-256. It never brings code: the file must be given again, unchanged.
"""

import argparse
import ast
import hashlib
import inspect
import sys
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from drcr.model import DRCR
from drcr.utils.files import DataError

DEFAULT = "DRCR"
ADDED = ("in_channels", "out_channels")
"""Arguments that a network gets where its constructor has them, and that the user need not give."""


def widen(network: DRCR, channels: int, to_train: bool = False) -> DRCR:
    """Return a DRCR Net of more channels that gives the same.

    The added channels are always 0: their weights are, and they stay 0 through activations and gates. With `to_train`
    they get random weights, but nothing reads them yet. So a large network goes on from what a small one has learnt.
    """
    narrow = network.architecture["channels"]
    architecture: dict[str, Any] = network.architecture | {"channels": channels}
    wider = DRCR(**architecture)
    wider.wavelengths = network.wavelengths
    with torch.no_grad():
        for old, new in zip(network.parameters(), wider.to(next(network.parameters())).parameters(), strict=True):
            new[: len(old) if to_train else None] = 0
            if old.ndim == 1:
                new[: len(old)] = old
                continue
            n_maps = max(1, old.shape[1] // narrow)  # a layer reads one or several feature maps, side by side
            for a, b in zip(old.chunk(n_maps, 1), new.chunk(n_maps, 1), strict=True):
                b[: a.shape[0], : a.shape[1]] = a
    return wider


class PixelMLP(nn.Module):
    """A multilayer perceptron for each pixel on its own: what a network can do without neighbours."""

    def __init__(self, in_channels: int = 3, out_channels: int = 31, channels: int = 64, n_layers: int = 4) -> None:
        """`channels` features in each of `n_layers` hidden layers."""
        super().__init__()
        sizes = [in_channels, *[channels] * n_layers]
        hidden = (layer for a, b in pairwise(sizes) for layer in (nn.Conv2d(a, b, 1), nn.LeakyReLU(0.2)))
        self.layers = nn.Sequential(*hidden, nn.Conv2d(channels, out_channels, 1))

    def forward(self, rgb: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, bands, H, W)."""
        return self.layers(rgb)


class SideBySide(nn.Module):
    """A 3x3 and a 1x1 convolution of the same input, each with ReLU, concatenated: path-widening fusion."""

    def __init__(self, in_channels: int, channels: int) -> None:
        """`channels` of each of the two; 2 x `channels` in all."""
        super().__init__()
        self.conv3x3 = nn.Conv2d(in_channels, channels, 3, padding=1)
        self.conv1x1 = nn.Conv2d(in_channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, 2 x channels, H, W)."""
        return F.relu(torch.cat([self.conv3x3(x), self.conv1x1(x)], 1))


class HSCNNPlus(nn.Module):
    """HSCNN+ in its dense form, HSCNN-D (Shi et al., CVPR Workshops 2018), from memory: not compared.

    Every block reads the outputs of all blocks before it: a 1x1 convolution narrows them, two fusions side by side
    follow, and a 1x1 convolution gives the block's own features. A 1x1 convolution of everything ends the network.
    """

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 31,
        n_blocks: int = 38,
        channels: int = 64,
        growth: int = 16,
    ) -> None:
        """`channels` in a block after narrowing, `growth`: features that each block adds; 38 blocks as published."""
        super().__init__()
        self.first = SideBySide(in_channels, channels // 2)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(channels + i * growth, channels, 1),
                nn.ReLU(),
                SideBySide(channels, growth),
                SideBySide(2 * growth, growth),
                nn.Conv2d(2 * growth, growth, 1),
                nn.ReLU(),
            )
            for i in range(n_blocks)
        )
        self.last = nn.Conv2d(channels + n_blocks * growth, out_channels, 1)

    def forward(self, rgb: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, bands, H, W)."""
        features = self.first(rgb)
        for block in self.blocks:
            features = torch.cat([features, block(features)], 1)
        return self.last(features)


NAMES: dict[str, type[nn.Module]] = {DEFAULT: DRCR, "HSCNN+": HSCNNPlus, "MLP": PixelMLP}


class OtherNetwork(nn.Module):
    """A network other than DRCR Net, for images of any size."""

    def __init__(self, network: nn.Module, architecture: dict[str, Any]) -> None:
        """`architecture`: as `create` makes it, and checkpoints store it."""
        super().__init__()
        self.network, self.architecture = network, architecture
        self.wavelengths: list[float] | None = None
        self.input_encoding: Literal["linear", "stored"] = "linear"

    def forward(self, rgb: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, bands, H, W); the last row and column are repeated up to the multiple needed."""
        height, width = rgb.shape[2:]
        multiple = self.architecture["multiple"]
        if multiple > 1:
            rgb = F.pad(rgb, (0, -width % multiple, 0, -height % multiple), mode="replicate")
        return self.network(rgb)[:, :, :height, :width]


Bare = DRCR | OtherNetwork
"""A network, not wrapped by a correction."""


def create(spec: str, arguments: dict[str, Any], bands: int) -> Bare:
    """Return a new network with random weights, which returns `bands` bands.

    `spec`: a key of `NAMES`, or FILE.py:Class. `arguments`: of its constructor; `in_channels` and `out_channels` are
    added where it has them. Raises DataError if there is no such network, it cannot be built, or returns something
    else.
    """
    if spec == DEFAULT:
        return _call(spec, DRCR, arguments | {"out_channels": bands})
    file, digest = _read_file(spec)
    maker = NAMES[spec] if file is None else _import(spec, file, digest)
    names = inspect.signature(maker).parameters
    arguments = {name: size for name, size in zip(ADDED, (3, bands), strict=True) if name in names} | arguments
    network = _call(spec, maker, arguments)
    architecture = {
        "network": stored_name(spec),
        "digest": digest,
        "arguments": arguments,
        "multiple": _needed_multiple(spec, network, bands),
        "in_channels": 3,
        "out_channels": bands,
    }
    return OtherNetwork(network, architecture)


def rebuild(architecture: dict[str, Any]) -> Bare:
    """Return the network that a checkpoint's architecture describes; its weights are random, or undefined.

    Raises DataError if it is a class in a file, and that file was not given (`offer`), or has changed.
    """
    if "network" not in architecture:
        with torch.device("meta"):
            model = DRCR(**architecture)
        return model.to_empty(device="cpu")  # drawing random weights takes time
    name = architecture["network"]
    if architecture["digest"] is None and name in NAMES:
        maker = NAMES[name]
    else:
        maker = _find_offered(name, architecture["digest"])
    return OtherNetwork(_call(name, maker, architecture["arguments"]), architecture)


# ---- networks from files

_offered: dict[str, None] = {}


def offer(spec: str) -> str:
    """Take note of a user's file, FILE.py:Class, for checkpoints that need it. It is imported only for them."""
    _offered[spec] = None
    return spec


def offered() -> tuple[str, ...]:
    """Return the files that were offered, for another process to offer them, too."""
    return tuple(_offered)


def add_network_option(parser: argparse.ArgumentParser) -> None:
    """Add the option --network of commands that read a checkpoint."""
    parser.add_argument(
        "--network",
        type=offer,
        metavar="FILE.py:Class",
        help="the file with the network's class, if the checkpoint was trained with one; it must be unchanged",
    )


def parse_arguments(words: list[str]) -> dict[str, Any]:
    """Read --network_args: KEY=VALUE, with numbers, True, None, lists as Python writes them, else text."""
    arguments = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key.isidentifier():
            raise DataError(f"--network_args {word}: must be KEY=VALUE")
        try:
            arguments[key] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            arguments[key] = value
    return arguments


def title_of(architecture: dict[str, Any]) -> str:
    """Return a network's name for readers."""
    return architecture.get("network", "DRCR Net")


def stored_name(spec: str) -> str:
    """Return a network's name as checkpoints have it: of a file without its folder."""
    return spec if spec in NAMES else Path(spec).name


def _read_file(spec: str) -> tuple[Path | None, str | None]:
    """Return the file of FILE.py:Class and its SHA-256; none for a name of `NAMES`."""
    if spec in NAMES:
        return None, None
    file, colon, _ = spec.rpartition(":")
    if not colon or not file.endswith(".py"):
        raise DataError(f"--network {spec}: must be {', '.join(NAMES)}, or FILE.py:Class")
    if not Path(file).is_file():
        raise DataError(f"{file}: no such file; give --network FILE.py:Class")
    return Path(file), hashlib.sha256(Path(file).read_bytes()).hexdigest()


def _import(spec: str, file: Path, digest: str | None) -> type[nn.Module]:
    """Return the class that a file defines; the file is run once."""
    name = f"drcr_network_{digest}"
    if name not in sys.modules:
        module = ModuleType(name)
        module.__file__ = str(file)
        sys.modules[name] = module  # where dataclasses and pickle look for it
        try:
            exec(compile(file.read_bytes(), file, "exec"), module.__dict__)
        except Exception as error:
            del sys.modules[name]
            raise DataError(f"{file}: cannot be imported: {_words(error)}") from error
    found = getattr(sys.modules[name], spec.rpartition(":")[2], None)
    if not isinstance(found, type) or not issubclass(found, nn.Module):
        raise DataError(f"{spec}: the file has no such class of torch.nn.Module")
    return found


def _find_offered(name: str, digest: Any) -> type[nn.Module]:
    """Return the class of a checkpoint from the files that were given."""
    changed = None
    for spec in _offered:
        file, found = _read_file(spec)
        if file is not None and found == digest:
            return _import(name, file, digest)
        if file is not None and file.name == name.rpartition(":")[0]:
            changed = file
    if changed is not None:
        raise DataError(f"{changed}: has changed since the network was trained (SHA-256 then {digest[:12]}...)")
    raise DataError(f"needs the file of its network; give it by --network {name} (SHA-256 {digest[:12]}...)")


def _call(spec: str, maker: type[nn.Module], arguments: dict[str, Any]) -> Any:
    try:
        return maker(**arguments)
    except (TypeError, ValueError, RuntimeError, ArithmeticError, LookupError, AssertionError) as error:
        raise DataError(f"--network {spec}: cannot be built: {_words(error)}; see --network_args") from error


@torch.no_grad()
def _needed_multiple(spec: str, network: nn.Module, bands: int) -> int:
    """Return the smallest power of 2 that heights and widths must be a multiple of, tried out."""
    training, problem = network.training, ""
    network.eval()
    for multiple in (1, 2, 4, 8, 16, 32, 64):
        height, width = 64 + multiple, 64 + 3 * multiple
        try:
            shape = tuple(network(torch.zeros(1, 3, height, width)).shape)
            if shape == (1, bands, height, width):
                network.train(training)
                return multiple
            problem = f"returns {shape}, not {(1, bands, height, width)}"
        except Exception as error:  # whatever it raises, this size is not one that it takes
            problem = _words(error)
    raise DataError(f"--network {spec}: cannot map (1, 3, H, W) to (1, {bands}, H, W): {problem}; see --network_args")


def _words(error: BaseException) -> str:
    """Return an error in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]
