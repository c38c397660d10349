"""Data preparation: a folder of cubes and RGB images becomes HDF5, in which no pixel stands twice.

A prepared folder holds one HDF5 file a scene (`cube` float32 (bands, H, W), `rgb` (3, H, W) as decoded, both
contiguous, so that they can be mapped into memory) and, written last, `index.json` with the list of scenes.
Patches are cut when they are read.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from tqdm import tqdm

from drcr.files import DataError, list_files, write_atomically, write_hdf5
from drcr.images import IMAGE_SUFFIXES, read_rgb
from drcr.matfile import WAVELENGTHS, check_cube, read_cube

INDEX = "index.json"


def pair_by_name(spectral_dir: Path, rgb_dir: Path) -> list[tuple[str, Path, Path]]:
    """Return (name, cube file, image file) of each scene, sorted by name.

    Raises DataError that names the files without a partner.
    """
    cubes = list_files(spectral_dir, (".mat",), "spectral cubes")
    images = list_files(rgb_dir, IMAGE_SUFFIXES, "RGB images")
    for files, others, folder, partner in (
        (cubes, images, rgb_dir, "RGB image"),
        (images, cubes, spectral_dir, "cube"),
    ):
        alone = [path.name for name, path in files.items() if name not in others]
        if alone:
            more = f" and {len(alone) - 3} more" if len(alone) > 3 else ""
            raise DataError(
                f"{next(iter(files.values())).parent}: {', '.join(alone[:3])}{more} without {partner} of the "
                f"same name in {folder}; add it, or take the file away"
            )
    return [(name, path, images[name]) for name, path in cubes.items()]


def _source(cube_path: Path, rgb_path: Path) -> np.bytes_:
    """Return a text that changes when one of a scene's source files does."""
    stats = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in (cube_path, rgb_path)]
    return np.bytes_(json.dumps(stats))  # of fixed length: HDF5 spends 4 kB on one of variable length


def read_index(out: Path) -> dict | None:
    """Return the index of a folder that an earlier run finished, None if there is none."""
    try:
        return json.loads((out / INDEX).read_text())
    except (OSError, ValueError):
        return None


def _is_prepared(path: Path, source: np.bytes_) -> bool:
    """Tell whether a scene's file is there and was made from the same source files."""
    if not path.is_file():
        return False
    try:
        with h5py.File(path) as file:
            return file.attrs["source"] == source
    except (OSError, KeyError):
        return False


@dataclass
class Prepared:
    """What `prepare` did: names of the scenes that it wrote or found done, and of those left out."""

    scenes: list[str]
    left_out: list[str]
    n_patches: int


def prepare(
    spectral_dir: str | Path,
    rgb_dir: str | Path,
    out: str | Path,
    patch_size: int | None = None,
    stride: int | None = None,
) -> Prepared:
    """Prepare all scenes of two folders, paired by name, into the folder `out`.

    Scenes with any value <= 0 in the cube are left out, and named, as in the released code. With `patch_size`
    and `stride` the folder is for `TrainPatches`, without for `ValidImages`. Scenes that an earlier run has
    finished are kept. Raises DataError on bad input, which it names.
    """
    out = Path(out)
    pairs = pair_by_name(Path(spectral_dir), Path(rgb_dir))
    out.mkdir(parents=True, exist_ok=True)
    before = read_index(out)
    if before and (before["patch_size"] is None) != (patch_size is None):
        other = "training" if patch_size is None else "validation"
        raise DataError(f"{out}: holds data prepared for {other}; choose another folder")

    scenes, left_out, n_patches = [], [], 0
    progress = tqdm(pairs, desc="preparing", unit="scene", dynamic_ncols=True)
    for name, cube_path, rgb_path in progress:
        path, source = out / f"{name}.h5", _source(cube_path, rgb_path)
        done = _is_prepared(path, source)
        if done:
            with h5py.File(path) as file:
                height, width = file["rgb"].shape[1:]
        else:
            cube = read_cube(cube_path)
            check_cube(cube, cube_path, bands=len(WAVELENGTHS))
            rgb = read_rgb(rgb_path)
            height, width = rgb.shape[:2]
            if cube.shape[:2] != (height, width):
                raise DataError(
                    f"{rgb_path}: {height} x {width} pixels, but its cube {cube_path} has "
                    f"{cube.shape[0]} x {cube.shape[1]}"
                )
            dark = np.count_nonzero(cube <= 0)
            if dark:
                progress.write(f"left out {name}: {dark} values <= 0, the lowest {cube.min():g}")
                left_out.append(name)
                continue
        _check_size(rgb_path, height, width, patch_size)
        if not done:
            # from here to the new index the folder counts as unfinished
            (out / INDEX).unlink(missing_ok=True)
            _write_scene(path, cube, rgb, source)
        scenes.append(name)
        if patch_size is not None:
            rows, columns = patch_grid(height, width, patch_size, stride)
            n_patches += rows * columns
    if not scenes:
        raise DataError(f"{spectral_dir}: every scene has values <= 0; none is left")

    index = {"patch_size": patch_size, "stride": stride, "scenes": scenes, "left_out": left_out}
    write_atomically(out / INDEX, lambda file: file.write(json.dumps(index, indent=1).encode()))
    for name in set(before["scenes"] if before else ()) - set(scenes):
        (out / f"{name}.h5").unlink(missing_ok=True)
    return Prepared(scenes, left_out, n_patches)


def _check_size(path: Path, height: int, width: int, patch_size: int | None) -> None:
    """Raise DataError if a patch is larger than the image, or the image too small to validate with."""
    if patch_size is None and (height < 6 or width < 4):  # the network takes 4 x 4, the loader drops two rows
        raise DataError(f"{path}: {height} x {width} pixels; validation needs at least 6 x 4")
    if patch_size is not None and min(height, width) < patch_size:
        raise DataError(
            f"{path}: {height} x {width} pixels, smaller than a patch of {patch_size} x {patch_size}; "
            "choose a smaller --patch_size"
        )


def _write_scene(path: Path, cube: np.ndarray, rgb: np.ndarray, source: np.bytes_) -> None:
    """Write a scene's file: cube (H, W, bands) and image (H, W, 3), both channel first."""

    def fill(file: h5py.File) -> None:
        file["cube"] = np.ascontiguousarray(cube.transpose(2, 0, 1))
        file["rgb"] = np.ascontiguousarray(rgb.transpose(2, 0, 1))
        file["rgb"].attrs["peak"] = float(rgb.max())
        file.attrs["source"] = source

    write_hdf5(path, fill)


def patch_grid(height: int, width: int, patch_size: int, stride: int) -> tuple[int, int]:
    """Return how many full windows fit down and across, with corners at multiples of the stride."""
    return (height - patch_size) // stride + 1, (width - patch_size) // stride + 1


def report(result: Prepared, out: Path) -> None:
    """Print what `prepare` did."""
    total = len(result.scenes) + len(result.left_out)
    print(f"{out}: {len(result.scenes)} of {total} scenes prepared, {len(result.left_out)} left out (values <= 0)")
    if result.left_out:
        print(f"left out: {', '.join(result.left_out)}")
