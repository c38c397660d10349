"""Data preparation: a folder of cubes and RGB images becomes a prepared folder, as drcr/data.py describes it.

No pixel is stored twice: patches are cut when they are read. The index is written last.
"""

import argparse
import json
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import h5py
import numpy as np
from tqdm import tqdm

from drcr.cube import (
    check_cube,
    check_same_size,
    check_scale,
    describe_bands,
    describe_floor,
    raise_to_floor,
    same_bands,
)
from drcr.data import INDEX, PreparedScene, check_targets, patch_grid, read_index, remove_scenes, scene_checksum
from drcr.formats.mat import load_cube
from drcr.images import IMAGE_SUFFIXES, Encoding, InputEncoding, add_encoding_option, describe_decoding, read_image
from drcr.utils import cli
from drcr.utils.files import DataError, and_more, list_files, print_other_files, strip_suffix, write_atomically
from drcr.utils.hdf5 import write_hdf5
from drcr.utils.parallel import in_order, processes_for


def pair_by_name(spectral_dir: Path, rgb_dir: Path, rgb_suffix: str = "") -> list[tuple[str, Path, Path]]:
    """Return (name, cube file, image file) of each scene, sorted by name; the image of NAME.mat is NAME`rgb_suffix`.

    Raises DataError, with the names, if files have no partner.
    """
    cubes = list_files(spectral_dir, (".mat",), "spectral cubes")
    images = strip_suffix(list_files(rgb_dir, IMAGE_SUFFIXES, "RGB images"), rgb_suffix, rgb_dir)
    for files, others, folder, partner in (
        (cubes, images, rgb_dir, "RGB image"),
        (images, cubes, spectral_dir, "cube"),
    ):
        alone = [path.name for name, path in files.items() if name not in others]
        if alone:
            raise DataError(
                f"{next(iter(files.values())).parent}: {and_more(alone, 3)} without {partner} of the same name in "
                f"{folder}; add it, or remove the file"
            )
    return [(name, path, images[name]) for name, path in cubes.items()]


def _source(job: "_Job") -> np.bytes_:
    """Return a fingerprint of a scene's source files and of what is done with them."""
    states = ((path.name, path.stat()) for path in (job.cube_path, job.rgb_path))
    # ctime, which no program can set, tells a new file of equal size whose time of modification was set back
    stats = [(name, state.st_size, state.st_mtime_ns, state.st_ctime_ns) for name, state in states]
    # of fixed length: HDF5 spends 4 kB on one of variable length
    return np.bytes_(json.dumps([*stats, job.floor, job.encoding]))


@dataclass(frozen=True)
class _SceneInfo:
    """What the index needs of a prepared scene."""

    height: int
    width: int
    wavelengths: np.ndarray
    raised: int
    decoding: str
    """How the image was read."""
    input_encoding: InputEncoding
    notes: tuple[str, ...] = ()


def _read_info(path: Path, source: np.bytes_) -> _SceneInfo | None:
    """Return what the index needs of a prepared file; None if it is missing, damaged or made from other sources."""
    try:
        scene = PreparedScene(path)
        if scene.source != source:
            return None
        scene.verify()
    except DataError:
        return None
    return _SceneInfo(*scene.size, scene.wavelengths, scene.raised, scene.decoding, scene.input_encoding)


@dataclass(frozen=True)
class _Job:
    """A scene to prepare, and how."""

    name: str
    cube_path: Path
    rgb_path: Path
    out: Path
    patch_size: int | None
    floor: float | None
    encoding: Encoding


def _load_scene(job: _Job) -> tuple[np.ndarray, np.ndarray, _SceneInfo] | str:
    """Read a scene's cube (H, W, bands) and image; return both and what the index needs, or why it is skipped."""
    cube = load_cube(job.cube_path)
    values, raised = cube.values, 0
    check_cube(values, job.cube_path)
    note = check_scale(values, job.cube_path)
    wavelengths = cube.require_wavelengths()
    image = read_image(job.rgb_path, job.encoding)
    rgb = image.stored
    check_same_size(rgb.shape, job.rgb_path, values.shape, job.cube_path)
    if job.floor is not None:
        values, raised = raise_to_floor(values, job.floor)
    elif (lowest := values.min()) <= 0:
        return f"skipped {job.name}: {np.count_nonzero(values <= 0)} values <= 0, the lowest {lowest:g}"
    notes = (*cube.notes, *([note] if note else []))
    height, width = rgb.shape[:2]
    return values, rgb, _SceneInfo(height, width, wavelengths, raised, image.how, image.input_encoding, notes)


def _prepare_scene(job: _Job, like: tuple[str, _SceneInfo] | None = None) -> _SceneInfo | str:
    """Write a scene's file, unless an earlier run did; return what the index needs, or why the scene is skipped.

    `like`: name and facts of a scene whose bands and encoding it must share. Raises DataError before anything is
    written.
    """
    path, source = job.out / f"{job.name}.h5", _source(job)
    info = _read_info(path, source)
    loaded = None
    if info is None:
        loaded = _load_scene(job)
        if isinstance(loaded, str):
            return loaded
        info = loaded[2]
    if like is not None:
        _check_alike(job, info, *like)
    _check_size(job.rgb_path, info.height, info.width, job.patch_size)
    if loaded is not None:
        # from here to the new index the folder counts as unfinished
        (job.out / INDEX).unlink(missing_ok=True)
        _write_scene(path, *loaded[:2], source, info)
    return info


def _check_alike(job: _Job, info: _SceneInfo, name: str, other: _SceneInfo) -> None:
    """Raise DataError if two scenes must not be in one data set."""
    if not same_bands(info.wavelengths, other.wavelengths):
        raise DataError(
            f"{job.cube_path}: {describe_bands(info.wavelengths)}, but {name} has "
            f"{describe_bands(other.wavelengths)}; all scenes of a data set need the same wavelengths"
        )
    if info.input_encoding != other.input_encoding:
        raise DataError(
            f"{job.rgb_path}: {info.decoding}, but the image of {name} {other.decoding}; a data set must not mix "
            "encoded and linear images; use --encoding auto"
        )


@dataclass(frozen=True)
class Prepared:
    """What `prepare` did.

    `scenes` are prepared, now or by an earlier run; `skipped` were not. `wavelengths` (bands,) in nm; `floor` as
    given; `raised` values per scene; `n_values`, `n_patches` of all scenes together; `decoding`: how the images were
    read.
    """

    scenes: list[str]
    skipped: list[str]
    wavelengths: np.ndarray
    floor: float | None
    raised: list[int]
    n_values: int
    n_patches: int
    input_encoding: InputEncoding
    decoding: str


def prepare(
    spectral_dir: str | Path,
    rgb_dir: str | Path,
    out: str | Path,
    patch_size: int | None = None,
    stride: int | None = None,
    floor: float | None = None,
    n_workers: int = 0,
    rgb_suffix: str = "",
    encoding: Encoding = "auto",
) -> Prepared:
    """Prepare all scenes of two folders, paired by name. Scenes that an earlier run has finished are kept.

    With `patch_size` and `stride` the folder `out` is for `TrainPatches`, without for `ValidImages`. Values below
    `floor` are raised to it; without it, scenes with values <= 0 are skipped and named, as in the released code. Each
    of `n_workers` processes holds at most two scenes (0: this one). The image of NAME.mat is NAME`rgb_suffix`, read
    as `drcr.images.read_image` does by `encoding`.

    Raises DataError if a file cannot be used, or the scenes have different bands.
    """
    out = Path(out)
    pairs = pair_by_name(Path(spectral_dir), Path(rgb_dir), rgb_suffix)
    check_targets(out, [name for name, *_ in pairs])
    out.mkdir(parents=True, exist_ok=True)
    before = read_index(out)
    if before and (before["patch_size"] is None) != (patch_size is None):
        other = "training" if patch_size is None else "validation"
        raise DataError(f"{out}: contains data prepared for {other}; choose another folder")

    jobs = [_Job(*pair, out, patch_size, floor, encoding) for pair in pairs]
    infos, skipped = _prepare_all(jobs, n_workers)
    if not infos:
        raise DataError(
            f"{spectral_dir}: every scene has values <= 0, so none is left; keep them with --non_positive floor VALUE"
        )
    print_other_files((cube for _, cube, _ in pairs), (image for _, _, image in pairs))
    result = _summarise(infos, skipped, patch_size, stride, floor)
    index = {"patch_size": patch_size, "stride": stride, **asdict(result), "wavelengths": result.wavelengths.tolist()}
    write_atomically(out / INDEX, lambda file: file.write(json.dumps(index, indent=1).encode()))
    remove_scenes(out, set(before["scenes"] if before else ()) - set(result.scenes))
    return result


def _prepare_all(jobs: list[_Job], n_workers: int) -> tuple[dict[str, _SceneInfo], list[str]]:
    """Prepare the scenes; return what the index needs, by name, and the names of those skipped."""
    infos: dict[str, _SceneInfo] = {}
    skipped: list[str] = []
    with tqdm(total=len(jobs), desc="preparing", unit="scene", dynamic_ncols=True) as progress:

        def done(job: _Job, info: _SceneInfo | str) -> None:
            progress.update()
            if isinstance(info, str):
                progress.write(info)
                skipped.append(job.name)
            else:
                infos[job.name] = info
                for note in info.notes:
                    progress.write(f"{job.name}: {note}")

        jobs, seconds = list(jobs), 0.0
        # one by one until the bands that all must share are known, the others in parallel
        while jobs and not infos:
            job, begin = jobs.pop(0), time.process_time()
            done(job, _prepare_scene(job))
            seconds = time.process_time() - begin
        like = next(iter(infos.items()), None)
        n_workers = processes_for(len(jobs), seconds, n_workers)
        results = in_order(partial(_prepare_scene, like=like), jobs, n_workers)
        for job, info in zip(jobs, results, strict=True):
            done(job, info)
    return infos, skipped


def _summarise(
    infos: dict[str, _SceneInfo], skipped: list[str], patch_size: int | None, stride: int | None, floor: float | None
) -> Prepared:
    n_patches = 0
    if patch_size is not None and stride is not None:
        grids = (patch_grid(info.height, info.width, patch_size, stride) for info in infos.values())
        n_patches = sum(rows * columns for rows, columns in grids)
    return Prepared(
        scenes=list(infos),
        skipped=skipped,
        wavelengths=next(iter(infos.values())).wavelengths,
        floor=floor,
        raised=[info.raised for info in infos.values()],
        n_values=sum(info.height * info.width * len(info.wavelengths) for info in infos.values()),
        n_patches=n_patches,
        input_encoding=next(iter(infos.values())).input_encoding,
        decoding=describe_decoding(info.decoding for info in infos.values()),
    )


def _check_size(path: Path, height: int, width: int, patch_size: int | None) -> None:
    """Raise DataError if an image is smaller than a patch, or too small for validation."""
    if patch_size is None and (height < 6 or width < 4):  # the network needs 4 x 4, the loader drops two rows
        raise DataError(f"{path}: {height} x {width} pixels; validation needs at least 6 x 4")
    if patch_size is not None and min(height, width) < patch_size:
        raise DataError(
            f"{path}: {height} x {width} pixels, smaller than a patch of {patch_size} x {patch_size}; "
            "choose a smaller --patch_size"
        )


def _write_scene(path: Path, cube: np.ndarray, rgb: np.ndarray, source: np.bytes_, info: _SceneInfo) -> None:
    """Write a scene's file: cube (H, W, bands) and image (H, W, 3), both channel first."""

    arrays, peak = {"cube": cube.transpose(2, 0, 1), "rgb": rgb.transpose(2, 0, 1)}, float(rgb.max())
    checksum = scene_checksum(
        **arrays, peak=peak, wavelengths=info.wavelengths, raised=info.raised, input_encoding=info.input_encoding
    )

    def fill(file: h5py.File) -> None:
        file["cube"].attrs.update(wavelengths=info.wavelengths, raised=info.raised)
        file["rgb"].attrs["peak"] = peak
        file["rgb"].attrs.update(decoding=np.bytes_(info.decoding), input_encoding=np.bytes_(info.input_encoding))
        file.attrs["source"] = source
        file.attrs["checksum"] = checksum

    write_hdf5(path, arrays, fill)


def add_options(parser: argparse.ArgumentParser, part: str) -> None:
    """Add the options that both commands have; `part` is Train or Valid."""
    parser.add_argument(
        "--data_path", type=Path, default="../Dataset", help=f"folder with {part}_spectral and {part}_RGB"
    )
    cli.add_rgb_suffix(parser)
    add_encoding_option(parser)
    cli.add_non_positive(parser)
    text = "processes that prepare scenes in parallel; 0: one scene after the other, in this process"
    cli.add_num_workers(parser, text)


def run(args: argparse.Namespace, part: str, out: Path, *sizes: int) -> Prepared:
    """Prepare a part, Train or Valid, as the options say, and print what was done; `sizes`: patch and stride."""
    cli.hold(out)
    folders = args.data_path / f"{part}_spectral", args.data_path / f"{part}_RGB"
    result = prepare(
        *folders, out, *sizes,
        floor=args.floor, n_workers=args.num_workers, rgb_suffix=args.rgb_suffix, encoding=args.encoding,
    )  # fmt: skip
    total = len(result.scenes) + len(result.skipped)
    print(
        f"{out}: {len(result.scenes)} of {total} scenes prepared, {len(result.skipped)} skipped (values <= 0), "
        f"{describe_bands(result.wavelengths)}"
    )
    if result.skipped:
        print(f"skipped: {', '.join(result.skipped)}")
    print(result.decoding)
    if result.floor is not None:
        print(describe_floor(result.floor, result.raised, result.n_values))
    return result
