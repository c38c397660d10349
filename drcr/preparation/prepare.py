"""Data preparation: a folder of cubes and RGB images becomes HDF5, in which no pixel stands twice.

A prepared folder holds one HDF5 file a scene (`cube` float32 (bands, H, W), `rgb` (3, H, W) as decoded, both
contiguous, so that they can be mapped into memory) and, written last, `index.json` with the list of scenes, the
wavelengths of their bands, and what was done about dark pixels. Patches are cut when they are read.
"""

import json
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import h5py
import numpy as np
from tqdm import tqdm

from drcr.cube import describe_floor, raise_to_floor
from drcr.data import INDEX, patch_grid, read_index
from drcr.images import IMAGE_SUFFIXES, read_image
from drcr.matfile import check_cube, describe_bands, read_cube, same_bands, wavelengths_of
from drcr.utils.files import DataError, list_files, write_atomically, write_hdf5
from drcr.utils.parallel import in_order


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


def _source(cube_path: Path, rgb_path: Path, floor: float | None) -> np.bytes_:
    """Return a text that changes when one of a scene's source files does, or what is done with them."""
    stats = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in (cube_path, rgb_path)]
    return np.bytes_(json.dumps([*stats, floor]))  # of fixed length: HDF5 spends 4 kB on one of variable length


@dataclass(frozen=True)
class _SceneInfo:
    """What the index needs of a prepared scene."""

    height: int
    width: int
    wavelengths: np.ndarray
    raised: int


def _read_info(path: Path, source: np.bytes_) -> _SceneInfo | None:
    """Return what the index needs of a scene's file; None if it is not there, or made from something else."""
    try:
        with h5py.File(path) as file:
            if file.attrs["source"] != source:
                return None
            attributes = file["cube"].attrs
            return _SceneInfo(*file["rgb"].shape[1:], attributes["wavelengths"], int(attributes["raised"]))
    except (OSError, KeyError):
        return None


@dataclass(frozen=True)
class _Job:
    """A scene to prepare, and how."""

    name: str
    cube_path: Path
    rgb_path: Path
    out: Path
    patch_size: int | None
    floor: float | None


def _prepare_scene(job: _Job, like: tuple[str, np.ndarray] | None = None) -> _SceneInfo | str:
    """Write a scene's file, if it is not there yet; return what the index needs, or why the scene is left out.

    `like`: name and wavelengths of a scene whose bands it must share. Raises DataError before anything is written.
    """
    path, source = job.out / f"{job.name}.h5", _source(job.cube_path, job.rgb_path, job.floor)
    info = _read_info(path, source)
    done = info is not None
    if not done:
        cube = read_cube(job.cube_path)
        check_cube(cube, job.cube_path)
        wavelengths = wavelengths_of(job.cube_path, cube.shape[2])
        rgb = read_image(job.rgb_path).stored
        if cube.shape[:2] != rgb.shape[:2]:
            raise DataError(
                f"{job.rgb_path}: {rgb.shape[0]} x {rgb.shape[1]} pixels, but its cube {job.cube_path} has "
                f"{cube.shape[0]} x {cube.shape[1]}"
            )
        if job.floor is None:
            lowest = cube.min()
            if lowest <= 0:
                return f"left out {job.name}: {np.count_nonzero(cube <= 0)} values <= 0, the lowest {lowest:g}"
            raised = 0
        else:
            cube, raised = raise_to_floor(cube, job.floor)
        info = _SceneInfo(*rgb.shape[:2], wavelengths, raised)
    if like is not None and not same_bands(info.wavelengths, like[1]):
        raise DataError(
            f"{job.cube_path}: {describe_bands(info.wavelengths)}, but {like[0]} has {describe_bands(like[1])}; one "
            "data set needs the same wavelengths throughout"
        )
    _check_size(job.rgb_path, info.height, info.width, job.patch_size)
    if not done:
        # from here to the new index the folder counts as unfinished
        (job.out / INDEX).unlink(missing_ok=True)
        _write_scene(path, cube, rgb, source, info)
    return info


@dataclass(frozen=True)
class Prepared:
    """What `prepare` did: names of the scenes that it wrote or found done, and of those left out.

    `wavelengths` (nm) of the bands, `floor` to which dark values were raised (None: scenes with values <= 0 are
    left out instead), and for each scene the number of values `raised`, of `n_values` in all.
    """

    scenes: list[str]
    left_out: list[str]
    wavelengths: np.ndarray
    floor: float | None
    raised: list[int]
    n_values: int
    n_patches: int


def prepare(
    spectral_dir: str | Path,
    rgb_dir: str | Path,
    out: str | Path,
    patch_size: int | None = None,
    stride: int | None = None,
    floor: float | None = None,
    n_workers: int = 0,
) -> Prepared:
    """Prepare all scenes of two folders, paired by name, into the folder `out`.

    Scenes with any value <= 0 in the cube are left out, and named, as in the released code; with `floor`, above 0,
    none is, and values below it are raised to it. With `patch_size` and `stride` the folder is for
    `TrainPatches`, without for `ValidImages`. Scenes that an earlier run has finished are kept. `n_workers`
    processes (0: this one) hold two scenes each at most. Raises DataError on bad input, which it names; all scenes
    need the same bands.
    """
    out = Path(out)
    pairs = pair_by_name(Path(spectral_dir), Path(rgb_dir))
    out.mkdir(parents=True, exist_ok=True)
    before = read_index(out)
    if before and (before["patch_size"] is None) != (patch_size is None):
        other = "training" if patch_size is None else "validation"
        raise DataError(f"{out}: holds data prepared for {other}; choose another folder")

    jobs = [_Job(*pair, out, patch_size, floor) for pair in pairs]
    infos: dict[str, _SceneInfo] = {}
    left_out: list[str] = []
    n_patches = 0
    with tqdm(total=len(jobs), desc="preparing", unit="scene", dynamic_ncols=True) as progress:

        def done(job: _Job, info: _SceneInfo | str) -> None:
            progress.update()
            if isinstance(info, str):
                progress.write(info)
                left_out.append(job.name)
            else:
                infos[job.name] = info

        # one by one until the bands that all must share are known, the others side by side
        while jobs and not infos:
            job = jobs.pop(0)
            done(job, _prepare_scene(job))
        like = next(((name, info.wavelengths) for name, info in infos.items()), None)
        # a process takes as long to start as some ten scenes take
        results = in_order(partial(_prepare_scene, like=like), jobs, min(n_workers, len(jobs) // 10))
        for job, info in zip(jobs, results, strict=True):
            done(job, info)
    if not infos:
        raise DataError(
            f"{spectral_dir}: every scene has values <= 0, none is left; --non_positive floor VALUE keeps them"
        )

    if patch_size is not None:
        grids = (patch_grid(info.height, info.width, patch_size, stride) for info in infos.values())
        n_patches = sum(rows * columns for rows, columns in grids)
    result = Prepared(
        scenes=list(infos),
        left_out=left_out,
        wavelengths=next(iter(infos.values())).wavelengths,
        floor=floor,
        raised=[info.raised for info in infos.values()],
        n_values=sum(info.height * info.width * len(info.wavelengths) for info in infos.values()),
        n_patches=n_patches,
    )
    index = {"patch_size": patch_size, "stride": stride, **asdict(result), "wavelengths": result.wavelengths.tolist()}
    write_atomically(out / INDEX, lambda file: file.write(json.dumps(index, indent=1).encode()))
    for name in set(before["scenes"] if before else ()) - set(result.scenes):
        (out / f"{name}.h5").unlink(missing_ok=True)
    return result


def _check_size(path: Path, height: int, width: int, patch_size: int | None) -> None:
    """Raise DataError if a patch is larger than the image, or the image too small to validate with."""
    if patch_size is None and (height < 6 or width < 4):  # the network takes 4 x 4, the loader drops two rows
        raise DataError(f"{path}: {height} x {width} pixels; validation needs at least 6 x 4")
    if patch_size is not None and min(height, width) < patch_size:
        raise DataError(
            f"{path}: {height} x {width} pixels, smaller than a patch of {patch_size} x {patch_size}; "
            "choose a smaller --patch_size"
        )


def _write_scene(path: Path, cube: np.ndarray, rgb: np.ndarray, source: np.bytes_, info: _SceneInfo) -> None:
    """Write a scene's file: cube (H, W, bands) and image (H, W, 3), both channel first."""

    def fill(file: h5py.File) -> None:
        file["cube"].attrs.update(wavelengths=info.wavelengths, raised=info.raised)
        file["rgb"].attrs["peak"] = float(rgb.max())
        file.attrs["source"] = source

    write_hdf5(path, {"cube": cube.transpose(2, 0, 1), "rgb": rgb.transpose(2, 0, 1)}, fill)


def report(result: Prepared, out: Path) -> None:
    """Print what `prepare` did."""
    total = len(result.scenes) + len(result.left_out)
    print(
        f"{out}: {len(result.scenes)} of {total} scenes prepared, {len(result.left_out)} left out (values <= 0), "
        f"{describe_bands(result.wavelengths)}"
    )
    if result.left_out:
        print(f"left out: {', '.join(result.left_out)}")
    if result.floor is not None:
        print(describe_floor(result.floor, result.raised, result.n_values))
