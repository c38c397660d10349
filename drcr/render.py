"""RGB images for cubes that have none, and the data folders that the importers write."""

import argparse
import dataclasses
import zlib
from pathlib import Path

import numpy as np

from drcr import cli
from drcr.camera import PRESETS, Camera, Imaging
from drcr.files import DataError, write_atomically
from drcr.matfile import write_cube


def add_image_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that `image_options` reads."""
    real = PRESETS["real-world"]
    group = parser.add_argument_group("RGB images")
    add = group.add_argument
    add(
        "--preset",
        choices=sorted(PRESETS),
        default="real-world",
        help=f"real-world: {real.electrons} photo-electrons at value 1, exposed to a mean of {real.mean}, JPEG of "
        f"quality {real.quality}, as NTIRE 2022 describes its images. clean: no noise, exposed to the largest value, "
        "PNG. The options below change single parts of it",
    )
    add("--camera", default="Nikon 5100 (NPL)", help="camera of colour-science, or a CSV file: wavelength, R, G, B")
    add(
        "--gains",
        type=cli.positive,
        nargs=3,
        metavar=("R", "G", "B"),
        help="analogue gains; without them, light of equal energy is neutral. The challenge's camera has "
        "2.2933984 1 1.62308182",
    )
    add("--electrons", type=cli.non_negative, help="photo-electrons at value 1, 0: no noise")
    add(
        "--mean",
        type=cli.non_negative,
        help="exposure: the image's mean as a part of full scale, 0: its largest value at full scale",
    )
    add("--quality", type=cli.at_least(0), help="quality of the JPEG, 1 to 100, 0: PNG")


def image_options(parser: argparse.ArgumentParser, args: argparse.Namespace) -> tuple[Camera, Imaging]:
    """Return what the options of `add_image_options` say. Raises DataError if there is no such camera."""
    given = {name: getattr(args, name) for name in ("electrons", "mean", "quality")}
    imaging = dataclasses.replace(
        PRESETS[args.preset],
        **{name: value for name, value in given.items() if value is not None},
    )
    if imaging.mean >= 1 or imaging.quality > 100 or 0 < imaging.electrons < 1 or imaging.electrons > 1e9:
        parser.error("--mean below 1, --quality of 100 at most, --electrons 0 or from 1 to 1e9 are needed")
    return Camera(args.camera, args.gains), imaging


def noise_of(seed: int, name: str) -> np.random.Generator:
    """Return the random numbers of a scene's noise; they depend on `seed` and the scene's name alone."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def render_rgb(
    cube: np.ndarray, wavelengths: np.ndarray, camera: Camera, imaging: Imaging, rng: np.random.Generator, name: str
) -> bytes:
    """Return the image file of the cube (H, W, bands) of the scene `name`, as `camera` and `imaging` make it.

    Raises DataError if the camera sees nothing.
    """
    linear = camera(cube, wavelengths)
    if not linear.max() > 0:
        raise DataError(f"{name}: black all over; there is nothing to make an image of")
    image = imaging.develop(linear, rng)
    if not image.any():
        raise DataError(f"{name}: too dark for an image of 8 bits; more --electrons, or another exposure (--mean)")
    return imaging.encode(image)


@dataclasses.dataclass(frozen=True)
class DataFolder:
    """A data folder to write: `Train_spectral`, `Train_RGB`, `Valid_spectral`, `Valid_RGB` under `out`.

    Files that are there already are never overwritten.
    """

    out: Path
    camera: Camera
    imaging: Imaging
    rgb: bool = True
    """Whether images are written at all."""

    def paths(self, part: str, name: str) -> tuple[Path, Path]:
        """Return where a scene's cube and image go; `part` is Train or Valid."""
        return (
            self.out / f"{part}_spectral" / f"{name}.mat",
            self.out / f"{part}_RGB" / f"{name}{self.imaging.suffix}",
        )

    def is_whole(self, part: str, name: str) -> bool:
        """Tell whether a scene's files are there."""
        return all(path.exists() for path in self.paths(part, name)[: 1 + self.rgb])

    def check_free(self, scenes: dict[str, str]) -> None:
        """Raise DataError if a file of a scene, name -> part, is there already."""
        for name, part in scenes.items():
            for path in self.paths(part, name)[: 1 + self.rgb]:
                if path.exists():
                    raise DataError(f"{path}: is there already; choose another --out, or remove it")

    def write(
        self,
        part: str,
        name: str,
        cube: np.ndarray,
        wavelengths: np.ndarray,
        rng: np.random.Generator,
        **variables: float,
    ) -> None:
        """Write a scene: its cube (H, W, bands), as it is, and the image made of it, with noise from `rng`."""
        cube_path, rgb_path = self.paths(part, name)
        image = render_rgb(cube, wavelengths, self.camera, self.imaging, rng, name) if self.rgb else None
        cube_path.parent.mkdir(parents=True, exist_ok=True)
        write_cube(cube_path, cube, wavelengths, **variables)
        if image is not None:
            rgb_path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(rgb_path, lambda file: file.write(image))
