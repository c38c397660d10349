"""Make pairs of a small cube and its image, to train a network on: photographs, or linear images.

Real pairs are crops of measured scenes, at random scale, mostly under a random smooth light, which gives them other
spectra. Pseudo-scenes have the structure of any image: its colours are grouped, each group gets a measured
reflectance of about its colour (one of the 40 nearest of luxpy's and colour-science's, at random), they are mixed
softly, and multiplied by smooth functions until the observer (photographs) or the challenge's camera (linear images)
sees the image again. Every pair gets an image anew: a camera, noise, exposure, JPEG.

Names of real pairs begin with `real`, of pseudo-scenes with `pseudo`. The values of cubes are raised to 0.01.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from scipy.spatial import KDTree
from torch import nn
from tqdm import tqdm

from drcr.camera import OBSERVER, Camera, Imaging
from drcr.correction import Correction
from drcr.cube import WAVELENGTHS
from drcr.formats.mat import read_cube, write_cube
from drcr.images import read_image
from drcr.preparation.photograph import Photograph
from drcr.preparation.render import scene_rng
from drcr.preparation.simulation import read_library, reflectances
from drcr.utils import cli
from drcr.utils.files import list_files, write_atomically

SIZE = 128
FLOOR = 0.01
PSEUDO = 0.4
"""Part of the pairs that are pseudo-scenes."""
GAINS = (2.2933984, 1, 1.62308182)
NEAREST = 40
PICTURES = (".jpg", ".png", ".tif")
KINDS = ("photographs", "linear")


@dataclass(frozen=True)
class Sources:
    """What pairs are made of."""

    kind: str
    cubes: list[Any]
    images: list[list[Path]]  # of each folder; folders have equal chance
    cameras: list[Camera]
    spectra: np.ndarray
    tree: KDTree
    holding: Correction

    def real(self, rng: np.random.Generator) -> np.ndarray:
        """Return a crop of a measured scene (SIZE, SIZE, 31)."""
        cube = self.cubes[rng.integers(len(self.cubes))]
        largest = min(cube.shape[:2])
        cube = crop(cube, int(rng.integers(SIZE, largest + 1)) if rng.random() < 0.6 else SIZE, rng)
        if rng.random() < 0.7:
            cube = cube * smooth_light(rng, 0.2)
        if rng.random() < 0.7:
            cube = recolour(cube, rng)
        return cube / max(cube.max(), 1)

    def pseudo(self, rng: np.random.Generator) -> np.ndarray:
        """Return a pseudo-scene (SIZE, SIZE, 31)."""
        folder = self.images[rng.integers(len(self.images))]
        photographed = read_image(folder[rng.integers(len(folder))], "auto")
        image = photographed.values
        scale = max(1.0, min(image.shape[:2]) / 420)
        image = cv2.resize(image, None, fx=1 / scale, fy=1 / scale, interpolation=cv2.INTER_AREA)
        image = crop(image, int(rng.integers(SIZE, min(image.shape[:2]) + 1)), rng)
        if not photographed.photograph:  # their 8 bits are coarse, and their noise would become structure
            image = cv2.bilateralFilter(image, 5, 0.05, 2)
        image = np.maximum(image, 2e-3) / max(np.percentile(image, 99.5), 0.02)
        colours = image.reshape(-1, 3)
        total = colours.sum(1, keepdims=True)
        place = np.hstack([2 * np.log(colours / total), 0.35 * np.log(total)]).astype(np.float32)
        count = int(rng.integers(6, 25))
        cv2.setRNGSeed(int(rng.integers(2**31)))
        centres = cv2.kmeans(place, count, np.empty(0), (3, 12, 1e-3), 1, cv2.KMEANS_RANDOM_CENTERS)[2]
        middle = np.exp(centres[:, :3] / 2) * np.exp(centres[:, 3:] / 0.35)
        nearest = self.tree.query(chromaticity(middle.clip(0.02, 1) @ self.holding.responses.numpy()), NEAREST)[1]
        chosen = self.spectra[nearest[np.arange(count), rng.integers(0, NEAREST, count)]]
        distance = ((place[:, None] - centres) ** 2).sum(2)
        nearest_distance = distance.min(1, keepdims=True)
        mixture = np.exp((nearest_distance - distance) / (2 * np.median(nearest_distance) + 1e-6))
        spectra = np.maximum(mixture / mixture.sum(1, keepdims=True) @ chosen, 1e-3)
        with torch.no_grad():
            held = self.holding.hold(torch.tensor(np.float32(spectra)), torch.tensor(colours), torch.ones(()))
        cube = held.numpy().reshape(SIZE, SIZE, -1)
        if rng.random() < 0.3:
            cube = cube * smooth_light(rng, 0.12)
        return cube / np.percentile(cube, 99.9) * min(1, np.exp(rng.normal(-0.25, 0.3)))

    def pair(self, name: str) -> tuple[np.ndarray, bytes]:
        """Return the cube of a name, and its image file."""
        rng = scene_rng(0, name)
        while True:
            cube = self.pseudo(rng) if name.startswith("pseudo") else self.real(rng)
            cube = np.clip(cube, 0, 1)
            camera = self.cameras[rng.integers(len(self.cameras))]
            if self.kind == "photographs":
                photograph = Photograph(light=np.ones(len(WAVELENGTHS)))
                image = photograph.develop(camera(cube) / camera.white(), camera, rng)
                file = photograph.encode(image, rng)
            else:
                imaging = Imaging(np.exp(rng.uniform(np.log(3000), np.log(12000))), quality=int(rng.integers(60, 76)))
                image = imaging.develop(camera(cube), rng, camera.white())
                file = imaging.encode(image)
            if image.max() > 40:  # else black all over
                return np.maximum(cube, FLOOR), file


def crop(values: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Return a random square of an image or cube, reduced to SIZE x SIZE."""
    top, left = (rng.integers(length - size + 1) for length in values.shape[:2])
    values = np.ascontiguousarray(values[top : top + size, left : left + size])
    if size == SIZE:
        return values
    bands = [cv2.resize(band, (SIZE, SIZE), interpolation=cv2.INTER_AREA) for band in np.moveaxis(values, 2, 0)]
    return np.stack(bands, 2)


def recolour(cube: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a cube with each of four groups of similar colours under a smooth light of its own."""
    thirds = np.stack([cube[..., :10].mean(2), cube[..., 10:20].mean(2), cube[..., 20:].mean(2)], 2).reshape(-1, 3)
    colours = np.log(thirds + 0.005)
    colours -= 0.8 * colours.mean(1, keepdims=True)
    anchors = colours[rng.integers(len(colours), size=4)]
    nearness = np.exp(-((colours[:, None] - anchors) ** 2).sum(2) / 0.05)
    lights = np.stack([smooth_light(rng, 0.2) for _ in anchors])
    mixed = (nearness + 1e-6) / (nearness + 1e-6).sum(1, keepdims=True) @ lights
    return cube * np.float32(mixed).reshape(cube.shape)


def smooth_light(rng: np.random.Generator, deviation: float) -> np.ndarray:
    """Return a smooth light (31,): the exponential of a Gaussian process of this deviation, correlated over 75 nm."""
    place = np.linspace(-1, 1, len(WAVELENGTHS))
    covariance = deviation**2 * np.exp(-0.5 * ((place[:, None] - place) / 0.5) ** 2)
    return np.exp(rng.multivariate_normal(np.zeros(len(place)), covariance)).astype(np.float32)


def chromaticity(colours: np.ndarray) -> np.ndarray:
    """Return colours (n, 3) as parts of their sum, and their brightness at a low weight."""
    total = colours.sum(1, keepdims=True) + 1e-6
    return np.hstack([colours / total, 0.15 * np.log(total)])


def gather(kind: str, scenes: Path, images: Sequence[Path], cameras: Path, challenge: Path) -> Sources:
    """Return the sources of a kind of pairs."""
    cubes = [np.float32(read_cube(path)) for path in sorted(scenes.glob("*.mat"))]
    files = [list(list_files(folder, PICTURES, "images").values()) for folder in images]
    measured = [Camera(path, (1, 1, 1)) for path in list_files(cameras, (".csv",), "cameras").values()]
    library = [sets[:: max(1, len(sets) // 30000)] for sets in read_library(["luxpy"]).sets]
    spectra = np.concatenate([*library, reflectances()])
    camera = OBSERVER if kind == "photographs" else str(challenge)
    holding = Correction(nn.Identity(), WAVELENGTHS.tolist(), "full")
    holding.set_camera(camera, None if kind == "photographs" else GAINS)
    if kind == "linear":  # half by the challenge's camera, a third by the default of Dataset/render_rgb.py
        measured = [Camera(camera.source) for camera in measured]
        measured += [Camera(challenge, GAINS)] * (3 * len(measured)) + [Camera()] * (2 * len(measured))
    return Sources(
        kind, cubes, files, measured, spectra, KDTree(chromaticity(spectra @ holding.curves.numpy())), holding
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Make the pairs."""
    parser = cli.parser(__doc__)
    add = parser.add_argument
    add("--kind", choices=KINDS, required=True, help="photographs, or linear images as the challenge makes them")
    add("--scenes", type=Path, required=True, help="folder of cubes (.mat) of the real scenes")
    add("--images", type=Path, nargs="+", required=True, help="folders of images for the pseudo-scenes")
    add("--cameras", type=Path, required=True, help="folder of the cameras' CSV files")
    add("--challenge_camera", type=Path, required=True, help="RGB_Camera_QE.csv, published by NTIRE 2022")
    add("--count", type=cli.at_least(1), default=2500, help="number of pairs")
    add("--out", type=Path, required=True, help="data folder to write; pairs that are there are kept")
    args = parser.parse_args(argv)
    sources = gather(args.kind, args.scenes, args.images, args.cameras, args.challenge_camera)
    suffix = Photograph.suffix if args.kind == "photographs" else Imaging().suffix
    for i in tqdm(range(args.count), desc=args.kind, unit="pair", dynamic_ncols=True):
        name = f"{'pseudo' if i % 100 < 100 * PSEUDO else 'real'}_{i:05}"
        image = args.out / "Train_RGB" / f"{name}{suffix}"
        if image.exists():
            continue
        cube, file = sources.pair(name)
        for path in (image, cube_path := args.out / "Train_spectral" / f"{name}.mat"):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_cube(cube_path, cube, WAVELENGTHS)
        write_atomically(image, lambda out, file=file: out.write(file))


if __name__ == "__main__":
    cli.run(main)
