"""Train DRCR Net on the data that train_data_preprocess.py and valid_data_preprocess.py prepared.

The defaults are the released recipe: batches of 16 patches drawn from all, MRAE loss, Adam, learning rate
1e-4 * (1 - i / 300000)^1.5 at iteration i, 130 epochs, fp32, no augmentation. Training ends after --end_epoch
epochs or --max_iter iterations, whichever comes first. On CUDA if there is one, else on the CPU. --recipe improved
adds what the field has learned since then.

Written to --outf after each epoch:
  loss.csv             epoch, iteration, seconds, learning rate, training loss, validation loss
  train.log            the same in words
  curves.png           the same as a picture
  net_<epoch>epoch.pth if the validation loss is a new best, or within 1e-4 of the best
  best.pth             the epoch with the lowest validation loss so far
and also within an epoch, every --save_every:
  last.pth             all that --resume needs; last-1.pth is the one before it (see --keep)

The validation loss is the MRAE of each whole image less its last two rows, averaged over the images.

Ctrl-C and SIGTERM, by which schedulers stop a job, finish the iteration, save, and say how to go on. Whatever ends a
run, the same command with --resume auto goes on from the newest checkpoint; on a CPU in fp32 it ends with the same
weights, bit for bit, as if it had never been stopped.
"""

import argparse
import copy
import csv
import importlib.util
import io
import math
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import l1_loss
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm

from drcr import checkpoint as checkpointing
from drcr.checkpoint import build_model, read_checkpoint
from drcr.compute.device import DelayedReading, Precision, choose_device, for_training, native_bf16
from drcr.compute.memory import activation_bytes, free_memory, memory_for
from drcr.data import Epochs, TrainPatches, ValidImages
from drcr.evaluation.figures import plot_curves
from drcr.matfile import describe_bands, same_bands
from drcr.metrics import mrae
from drcr.model import DRCR
from drcr.schedule import cosine_lr, poly_lr
from drcr.training.distributed import World, restarted
from drcr.training.recipe import CLIP_NORM, PARTS, augment, average, parts_of, read_recipe
from drcr.utils import cli
from drcr.utils.files import DataError, write_atomically

COLUMNS = ("epoch", "iteration", "seconds", "learning_rate", "train_loss", "valid_loss")
# what a resumed run must share
RECIPE = ("batchSize", "loss", "init_lr", "decay_power", "max_iter", "seed", "precision", "freeze", "recipe")
KEEP_WITHIN = 1e-4  # of the best validation loss: such epochs keep their checkpoint


@torch.inference_mode()
def validate(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    device: torch.device,
    stop: cli.Stop,
    world: World,
    n_images: int,
) -> float | None:
    """Return the MRAE averaged over all images; `batches`: this process' share, one image each. None if stopped."""
    model.eval()
    losses = torch.zeros(n_images)
    for i, (rgb, cube) in zip(world.share(range(n_images)), batches, strict=True):
        with memory_for(
            f"out of memory on {device}: a validation image of {rgb.shape[2]} x {rgb.shape[3]} is too large; cut it "
            "smaller (the importers' --size), and prepare the validation data again"
        ):
            losses[i] = mrae(model(rgb.to(device)), cube.to(device)).item()
        if stop.asked:
            break
    if world.any(stop.asked or 0):
        return None
    return world.sum(losses).double().mean().item()


def training_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    measure: Callable[[Tensor, Tensor], Tensor],
    rgb: Tensor,
    cube: Tensor,
    precision: Precision,
    weight: float = 1.0,
    clip_norm: float = math.inf,
) -> Tensor:
    """Train on a batch, (N, 3, h, w) and (N, bands, h, w) on the network's device; return its loss, there.

    `measure` takes output and truth; gradients are those of the loss times `weight`, scaled down to a norm of
    `clip_norm` if theirs is above. In "bf16" the network computes in bfloat16; weights, their gradients, the
    optimiser and the loss are float32 always.
    """
    with torch.autocast(rgb.device.type, torch.bfloat16, enabled=precision == "bf16"):
        output = model(rgb.to(memory_format=torch.channels_last))
    loss = measure(output.float(), cube)
    optimizer.zero_grad()
    (loss * weight).backward()
    if clip_norm < math.inf:
        nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], clip_norm)
    optimizer.step()
    return loss.detach()


def train(
    model: DRCR,
    epochs: Epochs,
    valid_batches: Iterable[tuple[Tensor, Tensor]],
    args: argparse.Namespace,
    device: torch.device,
    checkpoint: dict | None = None,
    data: dict | None = None,
    world: World = World(),  # noqa: B008, it never changes
    n_images: int | None = None,
) -> None:
    """Train `model` on `device`, from the start or from where `checkpoint` stopped, and write `args.outf`.

    Batches are (rgb, cube), float32 (N, 3, h, w) in [0, 1] and (N, bands, h, w) > 0. `data` tells what they are made
    of, for the checkpoints. In a world of several processes `valid_batches` are this one's share of `n_images`.
    Raises DataError when the loss is no longer finite, SystemExit when asked to stop.
    """
    parts = parts_of(args.recipe)
    fast = world.wrap(for_training(model, device, args.precision, args.compile))
    # what is validated and tested: with "ema" an average of the weights, else the network itself
    shown = copy.deepcopy(model).requires_grad_(False) if "ema" in parts else model
    n_images = len(valid_batches) if n_images is None else n_images
    measure = {"mrae": mrae, "l1": l1_loss}[args.loss]
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=args.init_lr, betas=(0.9, 0.999), eps=1e-8, fused=True)
    epoch, iteration, best, rows = 0, 0, math.inf, []
    losses, seconds = [], 0.0  # of the epoch under way
    if checkpoint:
        for group in checkpoint["optimizer"]["param_groups"]:
            group["fused"] = True  # earlier versions' were not, and these settings replace those above
        optimizer.load_state_dict(checkpoint["optimizer"])
        model.load_state_dict(checkpoint.get("trained", checkpoint["state_dict"]))
        epoch, iteration, best = checkpoint["epoch"], checkpoint["iter"], checkpoint["best"]
        losses, seconds = list(checkpoint.get("losses", torch.empty(0)).to(device)), checkpoint.get("seconds", 0.0)
        rows = read_rows(args.outf / "loss.csv", last_epoch=epoch)
        if not (args.outf / "best.pth").exists():
            best = math.inf  # resumed into a folder of its own

    def learning_rate(iteration: int) -> float:
        """Return the rate of iteration 0, 1, 2, ..."""
        if "cosine" in parts:
            return cosine_lr(args.init_lr, iteration, args.max_iter)
        return poly_lr(args.init_lr, iteration, args.max_iter, args.decay_power)

    def state(**fields: Any) -> dict[str, Any]:
        """Return what a checkpoint holds beside the network that is shown."""
        recipe = {option: getattr(args, option) for option in RECIPE}
        if shown is not model:
            fields["trained"] = model.state_dict()
        return {"epoch": epoch, "iter": iteration, "best": best, "recipe": recipe, "data": data} | fields

    def save_last() -> None:
        """Save what goes on from here."""
        if not world.first:
            return
        so_far = {"losses": torch.stack(losses).cpu() if losses else torch.empty(0), "seconds": seconds}
        random = {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all()}
        checkpointing.save_last(
            args.outf, args.keep, shown, **state(**so_far, random=random, optimizer=optimizer.state_dict())
        )

    def look_at(loss: float, at: int) -> None:
        """Raise DataError if the loss of iteration `at` is not finite."""
        if not math.isfinite(loss):
            scenes = ", ".join(epochs.scenes(len(losses) - 1 - (iteration - at)))
            kept = "; last.pth, from before, is kept" if (args.outf / "last.pth").exists() else ""
            raise DataError(
                f"{args.outf}: the loss of iteration {at} is not finite ({loss}), with patches of the scenes {scenes}"
                f"; a lower --init_lr may help, or look at these scenes (Dataset/check.py){kept}"
            )

    def stop_here(asked: int) -> None:
        """Save and end the program."""
        save_last()
        if world.first:
            tqdm.write(
                f"stopped by {signal.Signals(asked).name} in epoch {epoch + 1}, after iteration {iteration}; saved. "
                "To go on: the same command with --resume auto"
            )
        world.leave()
        raise SystemExit(128 + asked)

    saved = time.perf_counter()
    board = nullcontext()
    if args.tensorboard and world.first:
        from torch.utils.tensorboard import SummaryWriter  # an optional install

        board = SummaryWriter(args.outf / "tensorboard", purge_step=iteration + 1)
    with cli.Stop() as stop, board:
        while epoch < args.end_epoch and (iteration < args.max_iter or losses):
            start = time.perf_counter() - seconds
            # the order of the patches depends on seed and epoch alone: a resumed run draws the same
            batches = epochs.batches(epoch + 1, skip=len(losses))
            if checkpoint and "random" in checkpoint:
                torch.set_rng_state(checkpoint["random"]["cpu"])
                torch.cuda.set_rng_state_all(checkpoint["random"]["cuda"])
            checkpoint = None
            model.train()
            reading = DelayedReading()
            progress = tqdm(
                islice(batches, args.max_iter - iteration),
                desc=f"epoch {epoch + 1}/{args.end_epoch}",
                initial=len(losses),
                total=len(losses) + min(len(batches), args.max_iter - iteration),
                unit=" patches",
                unit_scale=args.batchSize,
                dynamic_ncols=True,
                disable=True if args.quiet or not world.first else None,  # None: where output is no terminal
            )
            for rgb, cube in progress:
                lr = learning_rate(iteration)
                for group in optimizer.param_groups:
                    group["lr"] = lr

                rgb, cube = rgb.to(device, non_blocking=True), cube.to(device, non_blocking=True)
                rgb, cube = augment(rgb, cube, parts, args.seed, iteration, epochs.positions(len(losses)))
                share = epochs.share(len(losses))
                # the processes' gradients are averaged: each counts by its share of the batch
                weight, clip_norm = share * world.size, CLIP_NORM if "clip" in parts else math.inf
                loss = training_step(fast, optimizer, measure, rgb, cube, args.precision, weight, clip_norm)
                losses.append(world.sum(loss * share))

                iteration += 1
                if shown is not model:
                    average(shown, model, iteration)
                seconds = time.perf_counter() - start
                seen = reading.exchange(losses[-1])  # of the iteration before: for the newest the CPU would wait
                if seen is not None:
                    look_at(seen, iteration - 1)
                    if iteration % 10 == 1:
                        progress.set_postfix(loss=f"{seen:.4f}", lr=f"{lr:.2e}")
                        if args.tensorboard and world.first:
                            board.add_scalar("loss/training", seen, iteration - 1)
                            board.add_scalar("learning rate", lr, iteration)
                asked = world.any(stop.asked or 0)
                if asked or args.save_every.due(iteration, time.perf_counter() - saved):
                    look_at(losses[-1].item(), iteration)
                    if asked:
                        stop_here(asked)
                    save_last()
                    saved = time.perf_counter()
            progress.close()

            look_at(losses[-1].item(), iteration)
            train_loss = torch.stack(losses).double().mean().item()
            lr = learning_rate(iteration - 1)
            valid_loss = validate(shown, valid_batches, device, stop, world, n_images)
            if valid_loss is None:
                stop_here(world.any(stop.asked or 0))
            if not math.isfinite(valid_loss):
                raise DataError(
                    f"{args.outf}: the validation loss of epoch {epoch + 1} is not finite ({valid_loss}); a lower "
                    "--init_lr may help"
                )
            epoch, losses, seconds = epoch + 1, [], time.perf_counter() - start
            rows.append([epoch, iteration, f"{seconds:.1f}", lr, train_loss, valid_loss])
            is_best, is_kept, seconds = valid_loss < best, valid_loss < best + KEEP_WITHIN, 0.0
            best = min(best, valid_loss)
            if not world.first:
                continue
            write_rows(args.outf / "loss.csv", rows)
            plot_curves(args.outf / "curves.png", args.outf / "loss.csv")
            if args.tensorboard:
                board.add_scalar("loss/training, mean of the epoch", train_loss, iteration)
                board.add_scalar("loss/validation, MRAE", valid_loss, iteration)
            log(
                args.outf / "train.log",
                f"epoch {epoch}, iteration {iteration}, {rows[-1][2]} s, learning rate {lr:.9f}, "
                f"training loss {train_loss:.6f}, validation loss {valid_loss:.6f}",
            )
            for name in ["best.pth"] * is_best + [f"net_{epoch}epoch.pth"] * is_kept:
                fields = state(valid_loss=valid_loss, optimizer=optimizer.state_dict())
                checkpointing.save_checkpoint(args.outf / name, shown, **fields)
            save_last()
            saved = time.perf_counter()


def read_rows(path: Path, last_epoch: int) -> list[list[str]]:
    """Return the rows of loss.csv up to an epoch; none if there is no such file."""
    if not path.is_file():
        return []
    with open(path, newline="") as file:
        return [row for row in list(csv.reader(file))[1:] if row and int(row[0]) <= last_epoch]


def write_rows(path: Path, rows: list[list]) -> None:
    """Write loss.csv."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([COLUMNS, *rows])
    write_atomically(path, lambda file: file.write(text.getvalue().encode()))


@dataclass(frozen=True)
class Every:
    """How often to save: after so many iterations, or seconds."""

    amount: float
    timed: bool = False

    def due(self, iteration: int, seconds: float) -> bool:
        """Tell whether to save after this iteration, `seconds` after the last time."""
        return seconds >= self.amount if self.timed else iteration % self.amount == 0


def iterations_or_minutes(text: str) -> Every:
    """Read --save_every: `500`, or `10min`."""
    if text.endswith("min"):
        return Every(60 * cli.positive(text.removesuffix("min")), timed=True)
    return Every(cli.at_least(1)(text))


def log(path: Path, line: str) -> None:
    """Print a line and append it, with the time, to train.log."""
    tqdm.write(line)
    try:
        with open(path, "a") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n")
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error  # a full disk names no file


def initialised(path: Path, wavelengths: list[float]) -> DRCR:
    """Return a network for these bands with the weights of a checkpoint; the last convolution fresh if it must be."""
    trained = build_model(read_checkpoint(path), path)
    model = DRCR(**trained.architecture | {"out_channels": len(wavelengths)})
    weights = trained.state_dict()
    if not same_bands(trained.wavelengths or (), wavelengths):
        del weights["tail.2.weight"]
        tqdm.write(f"{path}: other bands than the training data; the last convolution starts fresh")
    model.load_state_dict(weights, strict=False)
    return model


def check_memory(
    model: DRCR, args: argparse.Namespace, device: torch.device, patches: TrainPatches, world: World
) -> str:
    """Return advice for when memory runs out. Raises DataError with it if the batch is certain not to fit.

    A CPU's system would not report it: it kills the process.
    """
    room, size = free_memory(device), patches.patch_size
    precisions = [args.precision] + ["bf16"] * (args.precision != "bf16" and native_bf16(device))
    kept = {precision: activation_bytes(model, device, size, precision) for precision in precisions}
    # with what passes through while gradients are computed, twice as much is safe (measured: 1.1 to 1.8 times)
    fitting = [(int(room / (2 * kept[precision])) * world.size, precision) for precision in precisions]
    ways = " or ".join(f"--batchSize {count} --precision {precision}" for count, precision in fitting if count)
    advice = (
        f"{ways} should fit" if ways else "not even one patch fits; prepare smaller ones, or take fewer --channels"
    )
    batch = -(-min(args.batchSize, len(patches)) // world.size)
    needed = batch * kept[args.precision]
    if needed > room:
        raise DataError(
            f"{args.outf}: {batch} patches of {size} x {size} in {args.precision} need {needed / 1e9:.1f} GB of "
            f"memory or more, {room / 1e9:.1f} GB are free on {device}; {advice}"
        )
    return advice


def main(argv: Sequence[str] | None = None) -> None:
    """Read the options, open data and network, train."""
    parser = cli.parser(__doc__)
    add = parser.add_argument
    add("--batchSize", type=cli.at_least(1), default=16, help="patches a batch")
    add("--end_epoch", type=cli.at_least(1), default=130, help="epochs to train")
    add(
        "--loss",
        choices=("mrae", "l1"),
        default="mrae",
        help="training loss. mrae: the released one. l1: the mean absolute error, under which bright pixels weigh as "
        "much as they do in RMSE. Validation is MRAE in any case",
    )
    add(
        "--recipe",
        type=read_recipe,
        default="released",
        metavar="NAME|PART,...",
        help="released: as the authors trained. improved: with all of these parts; or some of them, with commas "
        f"between. {'; '.join(f'{name}: {words}' for name, words in PARTS.items())}. Measured: train/README.md",
    )
    add("--init_lr", type=cli.positive, default=1e-4, help="learning rate at iteration 0; with cosine the highest")
    add("--decay_power", type=cli.non_negative, default=1.5, help="power of the learning rate's polynomial decay")
    add("--max_iter", type=cli.at_least(1), default=300000, help="iteration at which the learning rate is 0")
    add("--outf", type=Path, default="RealWorldResults", help="folder for checkpoints and logs")
    add("--train_data_path", type=Path, default="./dataset/Train", help="prepared training data")
    add("--valid_data_path", type=Path, default="./dataset/Valid", help="prepared validation data")
    add("--channels", type=cli.at_least(8), default=100, help="feature channels C, at least 8")
    add("--n_blocks", type=cli.at_least(0), default=10, help="number of DRCR blocks")
    add(
        "--npm",
        choices=("released", "paper"),
        default="released",
        help="non-local purification as the authors' code computes it (the quarter scale shares the half scale's "
        "kernels), or as the paper's figure draws it (kernels of its own)",
    )
    add(
        "--precision",
        choices=("fp32", "tf32", "bf16"),
        default="fp32",
        help="arithmetic of the network in training; weights, optimiser and loss are float32 in any case. fp32: "
        "float32, as released. tf32: convolutions and products with 10 bits of mantissa, on CUDA only, in validation "
        "too. bf16: bfloat16, 7 bits, where processor or card have it; validation is float32",
    )
    add(
        "--compile",
        action="store_true",
        help="compile the network for training with torch.compile, which needs a C++ compiler and, at the start, "
        "patience. For CUDA: on a CPU it is slower than without",
    )
    add(
        "--cache",
        choices=("none", "ram", "gpu"),
        default="none",
        help="training data. none: patches are cut from the prepared files, which the system keeps in memory as far "
        "as there is room. ram: the files are read at the start, once for all worker processes; for slow or shared "
        "file systems. gpu: the scenes are kept, and the patches cut, on the graphics card. The patches are the same",
    )
    add(
        "--resume",
        metavar="auto|FILE",
        help="go on. auto: from the newest checkpoint in OUTF that is not damaged, from the start where there is "
        "none. FILE: from this checkpoint, usually OUTF/last.pth",
    )
    add(
        "--save_every",
        type=iterations_or_minutes,
        default="10min",
        metavar="N|Nmin",
        help="save last.pth after so many iterations or minutes, and after each epoch",
    )
    add(
        "--keep",
        type=cli.at_least(1),
        default=2,
        help="how many of these checkpoints are kept: last.pth, last-1.pth, ...",
    )
    add(
        "--init",
        type=Path,
        metavar="FILE",
        help="start from the weights of a checkpoint, ours or the authors', for fine-tuning; its size is kept "
        "(--channels, --n_blocks and --npm have no say), for another number of bands the last convolution is fresh",
    )
    add("--freeze", action="store_true", help="train the tail alone, the last two convolutions; with --init")
    add(
        "--tensorboard",
        action="store_true",
        help="also write losses and learning rate to OUTF/tensorboard, for `tensorboard --logdir OUTF`; needs "
        "`pip install tensorboard`",
    )
    add("--quiet", action="store_true", help="a line an epoch, no progress bar; so it is where output is no terminal")
    add("--seed", type=cli.at_least(0), default=0, help="seed of the starting weights and of the patches' order")
    workers = 4 if torch.cuda.is_available() else 0
    add("--num_workers", type=cli.at_least(0), default=workers, help="processes that cut patches beside this one")
    args = parser.parse_args(argv)

    world = World.join()
    if not world.first:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, for the rest of the program
    device = choose_device(args.precision)
    if args.batchSize < world.size:
        raise DataError(f"--batchSize {args.batchSize}: is for all {world.size} processes together; take more")
    if args.cache == "gpu" and device.type != "cuda":
        raise DataError("--cache gpu: needs CUDA, and there is none here; take none or ram")
    if args.compile and shutil.which(os.environ.get("CXX", "g++")) is None:
        raise DataError("--compile: needs a C++ compiler, and there is no g++ here; install it, or go without")
    if args.tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise DataError("--tensorboard: is not installed; pip install tensorboard, or go without")
    train_set, valid_set = TrainPatches(args.train_data_path, args.cache == "ram"), ValidImages(args.valid_data_path)
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
            f"{words[0]}; prepare both alike"
        )
    data = {"train": train_set.provenance, "valid": valid_set.provenance}
    checkpoint = None
    if restarted():
        args.resume = "auto"
    if args.resume == "auto":
        if found := checkpointing.find_last(args.outf):
            args.resume, checkpoint = found
    elif args.resume:
        checkpoint = read_checkpoint(args.resume)
    if checkpoint is None:
        names = ("last.pth", "best.pth", "loss.csv", "train.log")
        if args.resume:  # stopped before it had saved anything
            names = ("best.pth",)
        for path in (*(args.outf / name for name in names), *args.outf.glob("net_*epoch.pth")):
            if path.exists():
                raise DataError(
                    f"{path}: a run is here already; go on with it (--resume OUTF/last.pth, once an epoch is "
                    "finished), or choose another --outf"
                )
        torch.manual_seed(args.seed)
        sizes = {"channels": args.channels, "n_blocks": args.n_blocks, "npm": args.npm}
        bands = train_set.wavelengths
        model = initialised(args.init, bands) if args.init else DRCR(out_channels=len(bands), **sizes)
        model.wavelengths = train_set.wavelengths
    else:
        if not {"optimizer", "epoch", "iter", "best", "recipe"} <= checkpoint.keys():
            raise DataError(f"{args.resume}: no training state of this program in it; --resume takes OUTF/last.pth")
        model = build_model(checkpoint, args.resume)
        sizes = () if args.init else ("channels", "n_blocks", "npm")  # --init: those of that network
        trained_with = {name: model.architecture[name] for name in sizes}
        # earlier versions do not name these
        trained_with |= {"precision": "fp32", "freeze": False, "recipe": "released"} | checkpoint["recipe"]
        different = [
            f"--{option} {value}" for option, value in trained_with.items() if value != getattr(args, option)
        ]
        if different:
            raise DataError(f"{args.resume}: was trained with {' '.join(different)}; give the same to go on")
        for part, provenance in (checkpoint.get("data") or data).items():
            changed = [name for name, value in provenance.items() if value != data[part][name]]
            if changed:
                raise DataError(
                    f"{args.resume}: its {part} data had another {', '.join(changed)}; prepare them as before, or "
                    "start anew in another --outf"
                )
        if not same_bands(model.wavelengths or (), train_set.wavelengths):
            raise DataError(f"{args.resume}: was trained for other bands than {args.train_data_path} has")
        newest = checkpointing.find_last(args.outf)
        if newest and newest[1]["iter"] > checkpoint["iter"]:
            raise DataError(
                f"{args.resume}: is of iteration {checkpoint['iter']}, but {newest[0]} is of {newest[1]['iter']}; go "
                "on with --resume auto, or choose another --outf"
            )
        if checkpoint["epoch"] >= args.end_epoch or (
            checkpoint["iter"] >= args.max_iter and not len(checkpoint.get("losses", ()))
        ):
            print(f"{args.resume}: has come to the end, epoch {checkpoint['epoch']}, iteration {checkpoint['iter']}")
            return
    world.any(0)  # nobody writes before all have looked at what is there
    args.outf.mkdir(parents=True, exist_ok=True)

    loading = {"num_workers": args.num_workers, "pin_memory": device.type == "cuda"}
    if args.num_workers:  # forked, they share what is in memory
        loading |= {"prefetch_factor": 4, "multiprocessing_context": "fork"}
    valid_batches = DataLoader(Subset(valid_set, world.share(range(len(valid_set)))), batch_size=1, **loading)
    kept_on = device if args.cache == "gpu" else None
    epochs = Epochs(train_set, args.batchSize, args.seed, world, kept_on, **loading)
    if world.first:
        log(
            args.outf / "train.log",
            f"{len(train_set)} patches of {train_set.patch_size} x {train_set.patch_size}, {len(valid_set)} "
            f"validation images, {describe_bands(train_set.wavelengths)}, "
            f"{sum(p.numel() for p in model.parameters()):,} parameters, on {device}, {world.size} processes",
        )
        for what, dark_values in (("training", train_set.dark_values), ("validation", valid_set.dark_values)):
            if dark_values:
                log(args.outf / "train.log", f"{what} data, {dark_values}")
    if args.freeze:
        model.requires_grad_(False)
        model.tail.requires_grad_(True)
    advice = check_memory(model, args, device, train_set, world)
    with memory_for(f"{args.outf}: out of memory on {device}; {advice}"):
        train(model, epochs, valid_batches, args, device, checkpoint, data, world, len(valid_set))
    world.leave()
    if not world.first:
        return

    best = read_checkpoint(args.outf / "best.pth")
    print(f"best: epoch {best['epoch']}, validation loss {best['best']:.6f}, {args.outf / 'best.pth'}")
    print(f"next: cd ../test && python test.py --model_dir {(args.outf / 'best.pth').resolve()}")


if __name__ == "__main__":
    cli.run(main)
