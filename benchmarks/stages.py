"""The stages that bench.py measures, and the ways of doing each: the released way, ours, and what others offer."""

import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Literal, NamedTuple

import cv2
import numpy as np
import released
import torch
from measuring import Run, Way
from runtimes import runtimes
from torch.utils.flop_counter import FlopCounterMode

from drcr import metrics
from drcr.camera import Camera
from drcr.checkpoint import load_model
from drcr.compute.device import Precision, choose_device, for_training, native_bf16
from drcr.correction import Network, network_of
from drcr.cube import WAVELENGTHS
from drcr.images import normalise_rgb, read_rgb
from drcr.inference import Reconstructor
from drcr.model import DRCR
from drcr.preparation.render import PRESETS, render_rgb
from drcr.preparation.simulation import SceneModel

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = ROOT / "test/model/model.pth"


@dataclass(frozen=True)
class Work:
    """What to measure with: a folder of simulated scenes, and sizes."""

    folder: Path
    height: int
    width: int
    batch: int
    patch: int
    quick: bool

    @cached_property
    def pairs(self) -> list[tuple[Path, Path]]:
        """The cube and image files of the scenes."""
        cubes = sorted((self.folder / "Train_spectral").glob("*.mat"))
        return [(path, self.folder / "Train_RGB" / f"{path.stem}.jpg") for path in cubes]

    def network(self, shipped: bool = False) -> Network:
        """Return the released network with random weights, or the shipped one."""
        if shipped:
            return load_model(SHIPPED)
        torch.manual_seed(0)
        return DRCR().eval()

    def image(self) -> np.ndarray:
        """Return an image to reconstruct, (H, W, 3), float32: a scene's, cut or scaled up to the size."""
        image = normalise_rgb(read_rgb(self.pairs[0][1]))
        if self.height > len(image):
            return cv2.resize(image, (self.width, self.height))
        return image[: self.height, : self.width]

    def operations(self, model: Network, training: bool = False) -> float:
        """Return the floating-point operations of a pass over the image, or of a training step."""
        sizes = (self.batch, 3, self.patch, self.patch) if training else (1, 3, self.height, self.width)
        with FlopCounterMode(display=False) as counter:
            output = network_of(model).to("meta")(torch.empty(sizes, device="meta"))
            if training:
                output.mean().backward()
        return counter.get_total_flops()

    def batch_of_patches(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return a batch of (rgb, cube) to train on, on the device."""
        generator = torch.Generator().manual_seed(0)
        rgb, cube = (torch.rand(self.batch, n, self.patch, self.patch, generator=generator) for n in (3, 31))
        return rgb.to(choose_device()), (cube + 0.1).to(choose_device())


def make_scenes(folder: Path, size: tuple[int, int], count: int) -> None:
    """Write simulated scenes as ARAD_1K has them, compressed."""
    for name in ("Train_spectral", "Train_RGB"):
        (folder / name).mkdir()
    for i in range(count):
        rng, name = np.random.default_rng(i), f"ARAD_1K_{1 + i:04}"
        cube = SceneModel(size=size).render(rng)
        # real cubes have about 12 bits, and compress accordingly; 41 is 0.01
        cube = np.maximum(np.round(cube * 4095), 41).astype(np.float32) / 4095
        image = render_rgb(cube, WAVELENGTHS, Camera(), PRESETS["real-world"], rng, name)
        released.write_compressed(folder / f"Train_spectral/{name}.mat", cube=np.ascontiguousarray(cube.T))
        (folder / f"Train_RGB/{name}.jpg").write_bytes(image)


# ---- reconstruct


def reconstruct_released(work: Work) -> Run:
    """Return the released way: two passes."""
    return partial(released.reconstruct, work.network().to(choose_device()), work.image())


def reconstruct_once(work: Work, shipped: bool) -> Run:
    """Return one pass of the plain network, with which the other results are compared."""
    model = work.network(shipped).to(choose_device())

    @torch.inference_mode()
    def run() -> np.ndarray:
        rgb = torch.from_numpy(work.image()).permute(2, 0, 1)[None].to(choose_device())
        return model(rgb)[0].permute(1, 2, 0).cpu().numpy()

    return run


def reconstruct_ours(work: Work, shipped: bool, precision: Literal["fp32", "bf16"]) -> Run:
    """Return ours."""
    return partial(Reconstructor(work.network(shipped).to(choose_device()), precision), work.image())


def passes(work: Work, shipped: bool) -> list[Way]:
    """Return the ways of one pass over the image: the plain network, ours, and other runtimes on a CPU."""
    operations = work.operations(work.network(shipped))
    ways = [
        Way("plain network, one pass", partial(reconstruct_once, work, shipped), operations=operations),
        Way("ours, fp32", partial(reconstruct_ours, work, shipped, "fp32"), operations=operations),
    ]
    if native_bf16(choose_device()):
        setup = partial(reconstruct_ours, work, shipped, "bf16")
        ways.append(Way("ours, bf16", setup, operations=operations, precision="bf16"))
    if choose_device().type == "cpu":
        file = work.folder / ("shipped.onnx" if shipped else "network.onnx")
        ways += runtimes(work.network(shipped), work.image(), file, operations)
    return ways


def reconstruct(work: Work) -> list[Way]:
    """Reconstruct an image in memory with the released network."""
    operations = 2 * work.operations(work.network())
    ways = [Way("released, two passes", partial(reconstruct_released, work), operations=operations)]
    ways += passes(work, shipped=False)
    return ways


def reconstruct_shipped(work: Work) -> list[Way]:
    """Reconstruct an image in memory with the shipped network."""
    return passes(work, shipped=True)


def without_value(setup: Callable[[], Run]) -> Run:
    """Return a way that keeps nothing of its result."""
    run = setup()

    def run_only() -> None:
        run()

    return run_only


def reconstruct_photo(work: Work) -> list[Way]:
    """Reconstruct 12 megapixels in memory with the shipped network, without the plain one, which takes 40 GB."""
    height, width = (300, 400) if work.quick else (3000, 4000)
    _plain, *ways = passes(replace(work, height=height, width=width), shipped=True)
    return [replace(way, setup=partial(without_value, way.setup)) for way in ways]


# ---- train


def train_released(work: Work) -> Run:
    """Return the released way."""
    return released.training_step(work.network().train().to(choose_device()), *work.batch_of_patches())


def train_ours(work: Work, precision: Precision) -> Run:
    """Return ours."""
    from drcr.training.loop import training_step

    device = choose_device(precision)
    model = work.network().train()
    train_model = for_training(model, device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, betas=(0.9, 0.999), eps=1e-8, fused=True)
    rgb, cube = work.batch_of_patches()
    return lambda: training_step(train_model, optimizer, metrics.mrae, rgb, cube, precision)


def train(work: Work) -> list[Way]:
    """Train for one step."""
    operations = work.operations(work.network().train(), training=True)
    device = choose_device()
    precisions: list[Precision] = ["fp32"]
    if device.type == "cuda":
        precisions.append("tf32")
    if native_bf16(device):
        precisions.append("bf16")
    return [
        Way("released", partial(train_released, work), operations=operations),
        *(
            Way(f"ours, {name}", partial(train_ours, work, name), operations=operations, precision=name)
            for name in precisions
        ),
    ]


# ---- prepare


def prepare_released(work: Work) -> Run:
    """Return the released way."""

    def run() -> None:
        with tempfile.TemporaryDirectory(dir=work.folder) as out:
            released.prepare(work.pairs, Path(out), work.patch, work.patch // 2)

    return run


def prepare_ours(work: Work) -> Run:
    """Return ours, including the start of the program, in one process."""

    def run() -> None:
        with tempfile.TemporaryDirectory(dir=work.folder) as out:
            options = ("--data_path", work.folder, "--train_data_path", out, "--num_workers", 0)
            sizes = ("--patch_size", work.patch, "--stride", work.patch // 2)
            words = [sys.executable, ROOT / "train/train_data_preprocess.py", *options, *sizes]
            subprocess.run([*map(str, words)], check=True, capture_output=True)

    return run


def prepare(work: Work) -> list[Way]:
    """Prepare scenes for training."""
    count = len(work.pairs)
    return [Way("released", partial(prepare_released, work), count), Way("ours", partial(prepare_ours, work), count)]


class Stage(NamedTuple):
    """A stage: a function that returns its ways, the first of which the others are compared with; its unit."""

    ways: Callable[[Work], list[Way]]
    unit: str
    by_default: bool = True
    in_turns: bool = True
    """All ways exist at the same time; else one after the other, because one may need all memory."""


STAGES = {
    "prepare": Stage(prepare, "scene"),
    "train": Stage(train, "step"),
    "reconstruct": Stage(reconstruct, "image"),
    "shipped": Stage(reconstruct_shipped, "image"),
    "photo": Stage(reconstruct_photo, "image", by_default=False, in_turns=False),
}
