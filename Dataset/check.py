"""Check a data folder before training: find everything that would stop a training run or make its result wrong.

Reads every file of DATA_PATH/Train_spectral, Train_RGB, Valid_spectral and Valid_RGB. Prints a summary, then one line
per problem with what to do about it. Writes nothing.

Errors: a missing folder; a file without a partner, or that cannot be read; an image whose size differs from its
cube's, that is smaller than a patch (training) or than 6 x 4 pixels (validation), or that shows something else than
its cube; other bands than most scenes have; NaN; a part without a usable scene. With any error the exit status is 1.
Notes, with which training works: values above 1; the same cube or image under two names; a pair too small or too
smooth to compare; an image whose values contradict its encoding (--encoding). Dark values are counted as the
preparation would treat them (--non_positive).

An image is compared with its cube by the correlation of the fine detail of their luminance. Correct pairs have about
0.9 and more, wrong pairs less than 0.4. Swapped colour channels are not detected.
"""

import drcr.utils.start  # isort: skip # noqa: F401
import argparse
import shlex
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from drcr.cube import describe_bands, times, warn_of_dim
from drcr.images import add_encoding_option, describe_decoding
from drcr.preparation.checking import (
    PART_WORDS,
    CheckedScene,
    Fault,
    check_prepared,
    check_scenes,
    check_together,
    find_copies,
    find_scenes,
)
from drcr.utils import cli
from drcr.utils.files import DataError, and_more, describe_other_files, plural
from drcr.utils.parallel import available_cores


def counted(items: Iterable[str]) -> str:
    """Return the different texts, the most frequent first, with their counts if there are several."""
    counts = Counter(items)
    return and_more(
        [text if len(counts) == 1 else f"{text} ({count} scenes)" for text, count in counts.most_common()], 4
    )


def describe_part(part: str, scenes: list[CheckedScene], floor: float | None) -> None:
    """Print a summary of a part."""
    print(f"{part}: {plural(len(scenes), 'scene')}")
    sizes = [times(scene.size) for scene in scenes if scene.size]
    if sizes:
        print(f"  pixels  {counted(sizes)}")
    bands = [describe_bands(np.array(scene.wavelengths)) for scene in scenes if scene.wavelengths]
    if bands:
        print(f"  bands   {counted(bands)}")
    if how := [scene.decoding for scene in scenes if scene.decoding]:
        print(f"  images  {describe_decoding(how)}")
    read = [scene for scene in scenes if scene.n_values]
    if read:
        low, high = min(scene.lowest for scene in read), max(scene.highest for scene in read)
        print(f"  values  {low:.4g} to {high:.4g}")
        dark, total = [scene for scene in read if scene.n_dark], sum(scene.n_values for scene in read)
        n_dark, limit = sum(scene.n_dark for scene in dark), "<= 0" if floor is None else f"< {floor:g}"
        if dark:
            what = "skipped" if floor is None else f"raised to {floor:g}"
            print(f"  dark    {n_dark:,} of {total:,} values {limit} ({n_dark / total:.2%})")
            names = and_more((scene.name for scene in dark), 3)
            print(f"          in {len(dark)} of {len(read)} scenes, {what}: {names}")
        else:
            print(f"  dark    no values {limit}")
        if floor is None and (warning := warn_of_dim(sum(scene.n_dim for scene in read), total)) is not None:
            print(f"  dim     {warning}")


def print_faults(word: str, faults: list[Fault], everything: bool) -> None:
    """Print errors or notes, grouped by kind."""
    kinds: dict[str, list[str]] = {}
    for fault in faults:
        kinds.setdefault(fault.kind, []).append(fault.text)
    for kind, texts in kinds.items():
        shown = texts if everything or len(texts) <= 4 else texts[:3]
        for text in shown:
            print(f"{word}: {text}")
        if len(texts) > len(shown):
            print(f"{word}: and {len(texts) - len(shown)} more like these ({kind}); --all lists them")


def find_empty_parts(data_path: Path, scenes: list[CheckedScene], floor: float | None) -> list[Fault]:
    """Return an error for each part that has scenes, but none that the preparation would keep."""
    errors = []
    for part in PART_WORDS:
        here = [scene for scene in scenes if scene.part == part]
        if here and all(scene.is_skipped(floor) for scene in here):
            text = f"{data_path / f'{part}_spectral'}: every scene has values <= 0, so none is left"
            errors.append(Fault("none left", f"{text}; keep them with --non_positive floor VALUE"))
    return errors


def print_verdict(errors: list[Fault], scenes: list[CheckedScene]) -> None:
    """Print the broken files; exit with status 1 if there are any, or errors."""
    broken = [path for scene in scenes for path in scene.broken]
    if broken:
        print(f"download again: {plural(len(broken), 'broken file')}")
        for path in broken:
            print(f"  {path}")
    if errors or broken:
        count = len(errors) + len(broken)
        print(f"not ready: {plural(count, 'error')}; fix {'them' if count > 1 else 'it'} and run this again")
        sys.exit(1)


def print_next_commands(args: argparse.Namespace, scenes: list[CheckedScene]) -> None:
    """Print how many scenes are ready, and the commands that prepare them."""
    kept = Counter(scene.part for scene in scenes if not scene.is_skipped(args.floor))
    print(f"ready: {kept['Train']} training and {kept['Valid']} validation scenes. Next:")
    root, floor = Path(__file__).resolve().parent.parent, args.floor
    keep = "" if floor is None else f" --non_positive floor {floor:g}"
    keep += f" --encoding {args.encoding}" * (args.encoding != "auto")
    keep += f" --rgb_suffix {shlex.quote(args.rgb_suffix)}" if args.rgb_suffix else ""
    data = shlex.quote(str(args.data_path.resolve()))
    print(f"  cd {shlex.quote(str(root / 'train'))}")
    print(f"  python train_data_preprocess.py --data_path {data} --patch_size {args.patch_size}{keep}")
    print(f"  python valid_data_preprocess.py --data_path {data}{keep}")


def main(argv: Sequence[str] | None = None) -> None:
    """Read the options, check everything, report."""
    parser = cli.parser(__doc__)
    add = parser.add_argument
    add("--data_path", type=Path, default=".", help="folder with Train_spectral, Train_RGB and the same for Valid")
    add("--patch_size", type=cli.at_least(4), default=128, help="side of a training patch in pixels")
    cli.add_rgb_suffix(parser)
    add_encoding_option(parser)
    cli.add_non_positive(parser)
    text = "parallel processes, each with one scene in memory"
    add("--num_workers", type=cli.at_least(1), default=available_cores(), help=text)
    add(
        "--prepared",
        type=Path,
        nargs="+",
        metavar="FOLDER ...",
        help="check these folders of prepared data instead: each scene is read and compared with its checksum",
    )
    add("--all", action="store_true", help="list every problem, not only the first of each kind")
    args = parser.parse_args(argv)
    if args.prepared:
        errors = [fault for folder in args.prepared for fault in check_prepared(folder)]
        print_faults("error", errors, args.all)
        print_verdict(errors, [])
        print("ready: all scenes are as they were prepared")
        return
    if not args.data_path.is_dir():
        raise DataError(f"{args.data_path}: no such folder")

    errors = []
    scenes = [scene for part in PART_WORDS for scene in find_scenes(args.data_path, part, errors, args.rgb_suffix)]
    scenes = check_scenes(scenes, args.floor, args.num_workers, args.encoding)
    check_together(scenes, args.floor, args.patch_size)
    for part in PART_WORDS:
        describe_part(part, [scene for scene in scenes if scene.part == part], args.floor)
        for i, folder in enumerate((f"{part}_spectral", f"{part}_RGB")):
            taken = [path for scene in scenes if (path := (scene.cube_path, scene.rgb_path)[i]) is not None]
            others = (
                describe_other_files(args.data_path / folder, taken) if (args.data_path / folder).is_dir() else None
            )
            if others is not None:
                print(f"  files   {others}")
    errors += find_empty_parts(args.data_path, scenes, args.floor)
    errors += [fault for scene in scenes for fault in scene.errors]
    print_faults("error", errors, args.all)
    print_faults("note", find_copies(scenes) + [fault for scene in scenes for fault in scene.notes], args.all)
    print_verdict(errors, scenes)
    print_next_commands(args, scenes)


if __name__ == "__main__":
    cli.run(main)
