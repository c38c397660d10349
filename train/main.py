"""Train DRCR Net on the data that train_data_preprocess.py and valid_data_preprocess.py prepared.

The defaults are the released recipe: batches of 16 patches in random order, MRAE loss, Adam, learning rate
1e-4 * (1 - i / 300000)^1.5 at iteration i, 130 epochs, fp32, no augmentation. --recipe adds methods that the field
has adopted since. Training ends after --end_epoch epochs or --max_iter iterations, whichever comes first. It
runs on a GPU if CUDA finds one, else on the CPU. Several GPUs: torchrun --nproc_per_node 4 main.py (README.md).

Written to --outf after each epoch:
  loss.csv             epoch, iteration, seconds, learning rate, training loss, validation loss
  train.log            the same in words
  curves.png           the same as a picture
  best.pth             the epoch with the lowest validation loss so far
  net_<epoch>epoch.pth each epoch whose validation loss is a new best, or within 1e-4 of the best
and also within an epoch, see --save_every:
  last.pth             everything that --resume needs; last-1.pth is the one before it, see --keep

The validation loss is the MRAE of each whole image without its last two rows, averaged over the images.

Ctrl-C and SIGTERM, with which schedulers stop a job, finish the iteration, save, and print how to continue. However a
run ended, the same command with --resume auto continues from the newest checkpoint. On a CPU in fp32 it ends with
exactly the same weights as a run that never stopped.
"""

import drcr.utils.start  # isort: skip # noqa: F401
import argparse
import os
import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast

import torch

from drcr.camera import OBSERVER
from drcr.checkpoint import build_model, read_checkpoint
from drcr.compute.device import choose_device, native_bf16
from drcr.compute.memory import activation_bytes, free_memory, memory_for
from drcr.correction import Correction, Network, network_of
from drcr.cube import describe_bands, same_bands
from drcr.data import TrainPatches, ValidImages
from drcr.model import DRCR
from drcr.networks import ADDED, DEFAULT, NAMES, Bare, create, offer, parse_arguments, stored_name
from drcr.training.batches import Epochs, Validation, read_into_memory
from drcr.training.distributed import World, restarted
from drcr.training.loop import train
from drcr.training.recipe import FORMERLY_IMPROVED, LOSSES, RECIPE_PARTS, parts_of, read_recipe
from drcr.training.run_folder import Every, RunFolder
from drcr.training.state import RECIPE, check_state, damaged, freeze_all_but_tail, read_state
from drcr.utils import cli
from drcr.utils.extras import missing
from drcr.utils.files import BROKEN, DataError
from drcr.utils.locks import lock_folder


def main(argv: Sequence[str] | None = None) -> None:
    """Train, or go on training."""
    args = build_parser().parse_args(argv)
    world = World.join()
    if not world.first:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, for the rest of the program
    device = choose_device(args.precision)
    check_options(args, world)
    without_curves = missing("matplotlib", "figures", "curves.png")
    draw = None if without_curves else draw_curves
    folder = RunFolder(args.outf, args.keep, draw, args.tensorboard, writes=world.first)
    # of several processes, one writes
    with cli.Stop() as stop, lock_folder(args.outf) if world.first else nullcontext():
        train_set, valid_set = open_data(args)
        data = {"train": train_set.provenance, "valid": valid_set.provenance}
        checkpoint = find_checkpoint(args, folder)
        model = resumed_model(args, checkpoint, train_set, data) if checkpoint else new_model(args, train_set)
        if args.freeze:
            freeze_all_but_tail(model)
        if checkpoint is not None:
            check_state(checkpoint, model, args.resume)
            if is_finished(args, checkpoint):
                print(f"{args.resume}: already finished, epoch {checkpoint['epoch']}, iteration {checkpoint['iter']}")
                world.leave()
                return
        if args.cache == "ram":
            read_into_memory(train_set, stop)
        world.any(0)  # no process writes before all have looked at what is there
        advice = check_batch_fits(model, args, device, train_set, world)
        with folder.open(checkpoint["epoch"], checkpoint["iter"]) if checkpoint else folder.open():
            log_start(folder, train_set, valid_set, model, device, world)
            if without_curves:
                folder.log(without_curves)
            loading = loading_options(args, device)
            epochs = Epochs(
                train_set,
                args.batchSize,
                args.seed,
                max_iter=args.max_iter,
                parts=parts_of(args.recipe),
                world=world,
                **loading,
            )
            images = Validation(valid_set, world, **loading)
            with memory_for(f"{args.outf}: out of memory on {device}; {advice}"):
                train(
                    model, epochs, images, args, device, folder, stop, checkpoint=checkpoint, data=data, world=world
                )
    world.leave()
    if world.first:
        print_result(args.outf)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    parser = cli.parser(__doc__)
    add = parser.add_argument
    add("--batchSize", type=cli.at_least(1), default=16, help="patches per batch")
    add("--end_epoch", type=cli.at_least(1), default=130, help="number of epochs")
    add(
        "--loss",
        choices=tuple(LOSSES),
        default="mrae",
        help="training loss. mrae: as released. l1: mean absolute error, which weights bright pixels as RMSE does. "
        "si-mrae+sam: 0.75 MRAE of each patch at its best scale + 0.25 MRAE + 2 x spectral angle in radians + 0.5 "
        "RMSE at that scale, relative: hardly asks for a brightness that an exposed image does not tell. "
        "The validation loss is MRAE in any case",
    )
    add(
        "--recipe",
        type=read_recipe,
        default="released",
        metavar="NAME|PART,...",
        help="released: as the authors trained. improved: the part that has paid, robust. Or a comma-separated list "
        f"of parts. {'; '.join(f'{part}: {words}' for part, words in RECIPE_PARTS.items())}. Results: README.md",
    )
    add("--init_lr", type=cli.positive, default=1e-4, help="learning rate at iteration 0")
    add("--decay_power", type=cli.non_negative, default=1.5, help="exponent of the learning rate's polynomial decay")
    add("--max_iter", type=cli.at_least(1), default=300000, help="iteration at which the learning rate reaches 0")
    add("--outf", type=Path, default="RealWorldResults", help="folder for checkpoints and logs")
    add("--train_data_path", type=Path, default="./dataset/Train", help="prepared training data")
    add("--valid_data_path", type=Path, default="./dataset/Valid", help="prepared validation data")
    add(
        "--network",
        type=offer,
        default=DEFAULT,
        metavar="NAME|FILE.py:Class",
        help=f"the network: {', '.join(NAMES)}, or a class of torch.nn.Module in a Python file, which maps images "
        "(N, 3, H, W) to cubes (N, bands, H, W). Checkpoints store its name and its file's SHA-256, not its code: "
        "keep the file, unchanged",
    )
    add("--network_args", nargs="*", default=[], metavar="KEY=VALUE", help="of its constructor, unless it is DRCR")
    add("--channels", type=cli.at_least(8), default=100, help="feature channels C of DRCR, at least 8")
    add("--n_blocks", type=cli.at_least(0), default=10, help="number of blocks of DRCR")
    add(
        "--npm",
        choices=("released", "paper"),
        default="released",
        help="non-local purification module. released: as in the authors' code, where the quarter scale shares the "
        "kernels of the half scale. paper: as in the paper's figure, with its own kernels",
    )
    add(
        "--base",
        choices=("none", "root-polynomial"),
        default="none",
        help="none: the network's output is the cube, as released. root-polynomial: the network corrects a map per "
        "pixel that is fitted to the training data first, and the cube is held to the image: drcr/correction.py",
    )
    add(
        "--consistency",
        choices=("trained", "none"),
        default="trained",
        help="with --base, whether the cube is held to the image, as far as training finds best for each brightness",
    )
    add(
        "--camera",
        default=OBSERVER,
        help="with --base, the camera that took the training images: sRGB for photographs that are decoded to linear "
        "light, else a camera of colour-science or a CSV file (wavelength, R, G, B)",
    )
    add("--gains", type=cli.positive, nargs=3, metavar=("R", "G", "B"), help="analogue gains of --camera")
    add(
        "--brightness_data",
        type=Path,
        metavar="FOLDER",
        help="with --base, prepared whole images that teach how bright a scene is (default: the training data)",
    )
    add(
        "--precision",
        choices=("fp32", "tf32", "bf16"),
        default="fp32",
        help="arithmetic of the network in training; weights, optimizer and loss are float32 in any case. fp32: as "
        "released. tf32: convolutions and matrix products with 10 bits of mantissa, also in validation; NVIDIA GPUs "
        "only. bf16: bfloat16, 7 bits, on processors and GPUs that have it; validation is in fp32",
    )
    add(
        "--compile",
        action="store_true",
        help="compile the network with torch.compile. Needs a C++ compiler; the start takes longer. For GPUs: on a "
        "CPU it is slower",
    )
    add(
        "--cache",
        choices=("none", "ram"),
        default="none",
        help="where the training data are. none: in the prepared files, which the system keeps in free memory. ram: "
        "in memory, read once at the start and shared by all worker processes; for slow or shared file systems. The "
        "batches are the same",
    )
    add(
        "--resume",
        metavar="auto|FILE",
        help="continue a run. auto: from the newest undamaged checkpoint in OUTF; start a run if there is none. "
        "FILE: from this checkpoint, usually OUTF/last.pth",
    )
    add(
        "--save_every",
        type=iterations_or_minutes,
        default="10min",
        metavar="N|Nmin",
        help="save last.pth after N iterations or N minutes, and after each epoch",
    )
    add("--keep", type=cli.at_least(1), default=2, help="how many of last.pth, last-1.pth, ... to keep")
    add(
        "--init",
        type=Path,
        metavar="FILE",
        help="fine-tune: start from the weights of this checkpoint, ours or the authors'. Its size is kept; "
        "--channels, --n_blocks and --npm are ignored. If the bands differ, the last convolution starts at random",
    )
    add("--freeze", action="store_true", help="train the last two convolutions (the tail) only; use with --init")
    add(
        "--tensorboard",
        action="store_true",
        help="also write losses and learning rate to OUTF/tensorboard, for `tensorboard --logdir OUTF`; needs "
        "`pip install 'drcr[tensorboard]'`",
    )
    add(
        "--quiet",
        action="store_true",
        help="no progress bar and no line every three minutes, only one after each epoch",
    )
    add("--seed", type=cli.at_least(0), default=0, help="seed of the initial weights and of the order of the patches")
    workers = 4 if torch.cuda.is_available() else 0
    add("--num_workers", type=cli.at_least(0), default=workers, help="extra processes that cut the patches")
    return parser


def iterations_or_minutes(text: str) -> Every:
    """Read --save_every: `500`, or `10min`."""
    if text.endswith("min"):
        return Every(60 * cli.positive(text.removesuffix("min")), timed=True)
    return Every(cli.at_least(1)(text))


def check_options(args: argparse.Namespace, world: World) -> None:
    """Raise DataError if this machine cannot do what the options ask for."""
    if args.batchSize < world.size:
        raise DataError(f"--batchSize {args.batchSize}: is the total over all processes; use at least {world.size}")
    if args.compile and shutil.which(os.environ.get("CXX", "g++")) is None:
        raise DataError("--compile: needs a C++ compiler, and g++ was not found; install it, or omit --compile")
    if args.tensorboard and (line := missing("tensorboard", "tensorboard", "--tensorboard")):
        raise DataError(line)


def open_data(args: argparse.Namespace) -> tuple[TrainPatches, ValidImages]:
    """Return the two data sets. Raises DataError if they do not belong together."""
    train_set, valid_set = TrainPatches(args.train_data_path), ValidImages(args.valid_data_path)
    if not same_bands(train_set.wavelengths, valid_set.wavelengths):
        raise DataError(
            f"{args.valid_data_path}: {describe_bands(valid_set.wavelengths)}, but {args.train_data_path} has "
            f"{describe_bands(train_set.wavelengths)}; prepare both from the same data set"
        )
    floors = [part.provenance["floor"] for part in (train_set, valid_set)]
    if floors[0] != floors[1]:
        words = ["skip" if floor is None else f"floor {floor:g}" for floor in floors]
        raise DataError(
            f"{args.valid_data_path}: prepared with --non_positive {words[1]}, but {args.train_data_path} with "
            f"{words[0]}; prepare both with the same option"
        )
    if train_set.input_encoding != valid_set.input_encoding:
        raise DataError(
            f"{args.valid_data_path}: its images are {valid_set.input_encoding}, those of {args.train_data_path} are "
            f"{train_set.input_encoding}; prepare both with the same --encoding"
        )
    return train_set, valid_set


def find_checkpoint(args: argparse.Namespace, folder: RunFolder) -> dict[str, Any] | None:
    """Return the checkpoint to go on from, None to start a run; `args.resume` becomes its path.

    Raises DataError if that would touch another run, or files that are not ours.
    """
    if restarted():
        args.resume = "auto"
    if args.resume is None:
        folder.check_unused(resuming=False)
        return None
    newest = folder.find_last()
    if args.resume != "auto":
        path, checkpoint = Path(args.resume), read_state(args.resume)
    elif newest is None:
        folder.check_unused(resuming=True)
        return None
    else:
        path, checkpoint = newest
    folder.check_same_run(checkpoint, path, newest)
    args.resume = path
    return checkpoint


def network_arguments(args: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments of the network's constructor that the options give."""
    if args.network == DEFAULT:
        return {name: getattr(args, name) for name in ("channels", "n_blocks", "npm")}
    return parse_arguments(args.network_args)


def new_model(args: argparse.Namespace, train_set: TrainPatches) -> Network:
    """Return a network for the bands of the training data, with random weights or those of --init."""
    torch.manual_seed(args.seed)
    n_bands = len(train_set.wavelengths)
    start = None
    if args.init is None:
        model = create(args.network, network_arguments(args), n_bands)
    else:
        start = build_model(read_checkpoint(args.init), args.init)
        model = network_of(start)
        if model.input_encoding != train_set.input_encoding:
            raise DataError(
                f"{args.init}: was trained on {model.input_encoding} images, but those of {args.train_data_path} "
                f"are {train_set.input_encoding}; prepare them with another --encoding"
            )
        if not same_bands(model.wavelengths or (), train_set.wavelengths):
            if not isinstance(model, DRCR):
                raise DataError(f"{args.init}: was trained for other bands than those of {args.train_data_path}")
            weights = model.state_dict()
            del weights["tail.2.weight"]
            print(f"{args.init}: other bands than the training data; the last convolution starts at random")
            sizes: dict[str, Any] = model.architecture | {"out_channels": n_bands}
            model = DRCR(**sizes)
            model.load_state_dict(weights, strict=False)
    model.wavelengths, model.input_encoding = train_set.wavelengths, train_set.input_encoding
    return model if args.base == "none" else new_correction(args, model, train_set, start)


def new_correction(
    args: argparse.Namespace, network: Bare, train_set: TrainPatches, start: Network | None
) -> Correction:
    """Return the network as a correction of a base map, which is fitted here; what `start` has learnt is kept."""
    model = Correction(network, train_set.wavelengths, args.consistency)
    model.set_camera(args.camera, args.gains)
    if isinstance(start, Correction):
        model.learn_from(start)
    scenes = args.brightness_data or args.train_data_path
    print(f"fitting the base map to {args.train_data_path}, the brightness to {scenes}")
    model.fit(images_of(args.train_data_path), images_of(scenes), train_set.provenance["floor"] or 0.0)
    if args.init is None and isinstance(network, DRCR):
        with torch.no_grad():
            cast(torch.nn.Conv2d, network.tail[2]).weight.mul_(0.1)  # starts as the base map, nearly
    return model


def images_of(path: Path) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield the whole images of a prepared folder and their cubes."""
    images = ValidImages(path, drop_rows=0)
    yield from (images[i] for i in range(len(images)))


def resumed_model(
    args: argparse.Namespace, checkpoint: dict[str, Any], train_set: TrainPatches, data: dict[str, Any]
) -> Network:
    """Return the network of a checkpoint. Raises DataError if its run had other options or data."""
    model = build_model(checkpoint, args.resume)
    try:
        different = [] if args.init else other_network(args, model)  # with --init: the network there
        recipe = checkpoint["recipe"]
        if recipe["recipe"] == "improved":
            recipe = recipe | {"recipe": FORMERLY_IMPROVED}
        if gone := [part for part in parts_of(recipe["recipe"]) if part not in RECIPE_PARTS]:
            raise DataError(
                f"{args.resume}: was trained with {' and '.join(gone)} in --recipe, which no longer exists; start "
                "another run from its weights with --init"
            )
        different += [f"--{option} {recipe[option]}" for option in RECIPE if recipe[option] != getattr(args, option)]
        if different:
            raise DataError(
                f"{args.resume}: was trained with {' '.join(different)}; use the same options to continue"
            )
        if checkpoint["data"] is None:
            raise DataError(f"{args.resume}: was not written by main.py: it does not state its data")
        for part, now in data.items():
            if changed := [name for name in now if checkpoint["data"][part][name] != now[name]]:
                raise DataError(
                    f"{args.resume}: its {part} data had another {', '.join(changed)}; prepare them as before, or "
                    "start a run in another --outf"
                )
    except DataError:
        raise
    except BROKEN as error:
        raise damaged(args.resume) from error
    if not same_bands(model.wavelengths or (), train_set.wavelengths):
        raise DataError(f"{args.resume}: was trained for other bands than those of {args.train_data_path}")
    return model


def other_network(args: argparse.Namespace, model: Network) -> list[str]:
    """Return the options of the network that was trained where the given ones are others."""
    name = model.architecture.get("network", DEFAULT)
    if name != stored_name(args.network):
        return [f"--network {name}"]
    asked, option = network_arguments(args), "--{} {}" if name == DEFAULT else "--network_args {}={}"
    trained = model.architecture.get("arguments", model.architecture)
    trained = {key: value for key, value in trained.items() if key in asked or key not in ADDED}
    different = [option.format(key, value) for key, value in trained.items() if asked.get(key) != value]
    return different + [f"no --network_args {key}" for key in asked.keys() - trained.keys()]


def is_finished(args: argparse.Namespace, checkpoint: dict[str, Any]) -> bool:
    """Return whether nothing is left to train or validate."""
    within_an_epoch = len(checkpoint["losses"]) > 0
    at_the_end = checkpoint["iter"] >= args.max_iter and not within_an_epoch
    return checkpoint["epoch"] >= args.end_epoch or at_the_end


def log_start(
    folder: RunFolder,
    train_set: TrainPatches,
    valid_set: ValidImages,
    model: Network,
    device: torch.device,
    world: World,
) -> None:
    """Log what is trained, on what, and where."""
    folder.log(
        f"{len(train_set)} patches of {train_set.patch_size} x {train_set.patch_size}, {len(valid_set)} validation "
        f"images, {describe_bands(train_set.wavelengths)}, {sum(p.numel() for p in model.parameters()):,} "
        f"parameters, on {device}, {world.size} {'process' if world.size == 1 else 'processes'}"
    )
    for name, part in (("training", train_set), ("validation", valid_set)):
        if part.dark_values:
            folder.log(f"{name} data, {part.dark_values}")


def check_batch_fits(
    model: Network, args: argparse.Namespace, device: torch.device, patches: TrainPatches, world: World
) -> str:
    """Return advice for when memory runs out. Raises DataError with it if the batch cannot fit.

    A CPU's system would not report it: it would kill the process.
    """
    room, size = free_memory(device), patches.patch_size
    precisions = [args.precision] + ["bf16"] * (args.precision != "bf16" and native_bf16(device))
    kept = {precision: activation_bytes(model, device, size, precision) for precision in precisions}
    # twice as much is safe, with the gradients' own memory (measured: 1.1 to 1.8 times)
    fitting = [(int(room / (2 * kept[precision])) * world.size, precision) for precision in precisions]
    ways = " or ".join(f"--batchSize {count} --precision {precision}" for count, precision in fitting if count)
    advice = (
        f"{ways} should fit" if ways else "not even one patch fits; prepare smaller patches, or use fewer --channels"
    )
    batch = -(-min(args.batchSize, len(patches)) // world.size)
    needed = batch * kept[args.precision]
    if needed > room:
        raise DataError(
            f"{args.outf}: {batch} patches of {size} x {size} in {args.precision} need at least {needed / 1e9:.1f} "
            f"GB of memory, {room / 1e9:.1f} GB are free on {device}; {advice}"
        )
    return advice


def loading_options(args: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Return the options of the DataLoaders."""
    options: dict[str, Any] = {"num_workers": args.num_workers, "pin_memory": device.type == "cuda"}
    if args.num_workers:  # forked processes share what is in memory
        options |= {"prefetch_factor": 4, "multiprocessing_context": "fork"}
    return options


def draw_curves(path: Path, loss_csv: Path) -> None:
    """Draw a run's losses and learning rate."""
    from drcr.figures.scenes import plot_curves  # takes a second to import; the first epoch does not wait for it

    plot_curves(path, loss_csv)


def print_result(outf: Path) -> None:
    """Print the best epoch, and the command that uses it."""
    path = outf / "best.pth"
    best = read_checkpoint(path)
    print(f"best: epoch {best['epoch']}, validation loss {best['best']:.6f}, {path}")
    print(f"next: cd ../test && python test.py --model_dir {shlex.quote(str(path.resolve()))}")


if __name__ == "__main__":
    cli.run(main)
