"""Train DRCR Net on the data that train_data_preprocess.py and valid_data_preprocess.py prepared.

The defaults are the released recipe: batches of 16 patches drawn from all, MRAE loss, Adam, learning rate
1e-4 * (1 - i / 300000)^1.5 at iteration i, 130 epochs, fp32, no augmentation. Training ends after --end_epoch
epochs or --max_iter iterations, whichever comes first. On CUDA if there is one, else on the CPU.

Written to --outf after each epoch:
  loss.csv             epoch, iteration, seconds, learning rate, training loss, validation loss
  train.log            the same in words
  net_<epoch>epoch.pth if the validation loss is a new best, or within 1e-4 of the best
  best.pth             the epoch with the lowest validation loss so far
  last.pth             the last epoch: what --resume takes

The validation loss is the MRAE of each whole image less its last two rows, averaged over the images.
"""

import argparse
import csv
import io
import math
import os
import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import l1_loss
from torch.utils.data import DataLoader, RandomSampler
from tqdm import tqdm

from drcr import cli
from drcr.checkpoint import build_model, read_checkpoint, save_checkpoint
from drcr.data import PatchesOnDevice, TrainPatches, ValidImages
from drcr.device import DelayedReading, Precision, choose_device, for_training
from drcr.files import DataError, write_atomically
from drcr.matfile import describe_bands, same_bands
from drcr.metrics import mrae
from drcr.model import DRCR
from drcr.schedule import poly_lr

COLUMNS = ("epoch", "iteration", "seconds", "learning_rate", "train_loss", "valid_loss")
# what a resumed run must share
RECIPE = ("batchSize", "loss", "init_lr", "decay_power", "max_iter", "seed", "precision")
KEEP_WITHIN = 1e-4  # of the best validation loss: such epochs keep their checkpoint


@torch.inference_mode()
def validate(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], device: torch.device) -> float:
    """Return the MRAE averaged over (rgb, cube) batches; of one image each, as `main` makes them."""
    model.eval()
    losses = [mrae(model(rgb.to(device)), cube.to(device)) for rgb, cube in batches]
    return torch.stack(losses).double().mean().item()


def training_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    measure: Callable[[Tensor, Tensor], Tensor],
    rgb: Tensor,
    cube: Tensor,
    precision: Precision,
) -> Tensor:
    """Train on a batch, (N, 3, h, w) and (N, bands, h, w) on the network's device; return its loss, there.

    `measure` takes output and truth. In "bf16" the network computes in bfloat16; weights, their gradients, the
    optimiser and the loss are float32 always.
    """
    with torch.autocast(rgb.device.type, torch.bfloat16, enabled=precision == "bf16"):
        output = model(rgb.to(memory_format=torch.channels_last))
    loss = measure(output.float(), cube)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach()


def train(
    model: DRCR,
    train_batches: Iterable[tuple[Tensor, Tensor]],
    valid_batches: Iterable[tuple[Tensor, Tensor]],
    args: argparse.Namespace,
    device: torch.device,
    checkpoint: dict | None = None,
    data: dict | None = None,
) -> None:
    """Train `model` on `device`, from the start or from where `checkpoint` stopped, and write `args.outf`.

    Batches are (rgb, cube), float32 (N, 3, h, w) in [0, 1] and (N, bands, h, w) > 0; each pass over
    `train_batches` is an epoch. `data` tells what they are made of, for the checkpoints. Raises DataError when the
    loss is no longer finite.
    """
    fast = for_training(model, device, args.precision, args.compile)
    measure = {"mrae": mrae, "l1": l1_loss}[args.loss]
    optimizer = torch.optim.Adam(model.parameters(), lr=args.init_lr, betas=(0.9, 0.999), eps=1e-8, fused=True)
    epoch, iteration, best, rows = 0, 0, math.inf, []
    if checkpoint:
        for group in checkpoint["optimizer"]["param_groups"]:
            group["fused"] = True  # earlier versions' were not, and these settings replace those above
        optimizer.load_state_dict(checkpoint["optimizer"])
        epoch, iteration, best = checkpoint["epoch"], checkpoint["iter"], checkpoint["best"]
        rows = read_rows(args.outf / "loss.csv", last_epoch=epoch)
        if not (args.outf / "best.pth").exists():
            best = math.inf  # resumed into a folder of its own

    while epoch < args.end_epoch and iteration < args.max_iter:
        epoch += 1
        start = time.perf_counter()
        # order of the patches: by seed and epoch alone, so that a resumed run draws the same
        torch.manual_seed(1000 * args.seed + epoch)
        model.train()
        losses, reading = [], DelayedReading()
        progress = tqdm(train_batches, desc=f"epoch {epoch}/{args.end_epoch}", unit="batch", dynamic_ncols=True)
        for rgb, cube in progress:
            lr = poly_lr(args.init_lr, iteration, args.max_iter, args.decay_power)
            for group in optimizer.param_groups:
                group["lr"] = lr

            rgb, cube = rgb.to(device, non_blocking=True), cube.to(device, non_blocking=True)
            losses.append(training_step(fast, optimizer, measure, rgb, cube, args.precision))

            iteration += 1
            if len(losses) % 10 == 1:  # what is read is 10 iterations old: for the newest the CPU would wait
                seen = reading.exchange(losses[-1])
                if seen is not None:
                    progress.set_postfix(loss=f"{seen:.4f}", lr=f"{lr:.2e}")
                    if not math.isfinite(seen):
                        break
            if iteration == args.max_iter:
                break
        progress.close()

        train_loss = torch.stack(losses).double().mean().item()
        valid_loss = validate(model, valid_batches, device)
        if not math.isfinite(train_loss) or not math.isfinite(valid_loss):
            raise DataError(
                f"{args.outf}: the loss of epoch {epoch} is not finite (training {train_loss}, validation "
                f"{valid_loss}); a lower --init_lr may help" + "; last.pth holds the epoch before" * (epoch > 1)
            )
        seconds = time.perf_counter() - start
        rows.append([epoch, iteration, f"{seconds:.1f}", lr, train_loss, valid_loss])
        write_rows(args.outf / "loss.csv", rows)
        log(
            args.outf / "train.log",
            f"epoch {epoch}, iteration {iteration}, {seconds:.1f} s, learning rate {lr:.9f}, "
            f"training loss {train_loss:.6f}, validation loss {valid_loss:.6f}",
        )

        is_best, is_kept = valid_loss < best, valid_loss < best + KEEP_WITHIN
        best = min(best, valid_loss)
        names = ["best.pth"] * is_best + [f"net_{epoch}epoch.pth"] * is_kept + ["last.pth"]
        for name in names:
            save_checkpoint(
                args.outf / name,
                model,
                epoch=epoch,
                iter=iteration,
                best=best,
                valid_loss=valid_loss,
                recipe={option: getattr(args, option) for option in RECIPE},
                data=data,
                optimizer=optimizer.state_dict(),
            )


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


def log(path: Path, line: str) -> None:
    """Print a line and append it, with the time, to train.log."""
    tqdm.write(line)
    try:
        with open(path, "a") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n")
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error  # a full disk names no file


def main() -> None:
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
    add("--init_lr", type=cli.positive, default=1e-4, help="learning rate at iteration 0")
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
    add("--resume", type=Path, metavar="FILE", help="go on from a checkpoint, usually OUTF/last.pth")
    add("--seed", type=cli.at_least(0), default=0, help="seed of the starting weights and of the patches' order")
    workers = 4 if torch.cuda.is_available() else 0
    add("--num_workers", type=cli.at_least(0), default=workers, help="processes that cut patches beside this one")
    args = parser.parse_args()

    device = choose_device(args.precision)
    if args.cache == "gpu" and device.type != "cuda":
        raise DataError("--cache gpu: needs CUDA, and there is none here; take none or ram")
    if args.compile and shutil.which(os.environ.get("CXX", "g++")) is None:
        raise DataError("--compile: needs a C++ compiler, and there is no g++ here; install it, or go without")
    train_set, valid_set = TrainPatches(args.train_data_path, args.cache == "ram"), ValidImages(args.valid_data_path)
    if not same_bands(train_set.wavelengths, valid_set.wavelengths):
        raise DataError(
            f"{args.valid_data_path}: {describe_bands(valid_set.wavelengths)}, but {args.train_data_path} has "
            f"{describe_bands(train_set.wavelengths)}; prepare both from the same data set"
        )
    floors = [part.made_of["floor"] for part in (train_set, valid_set)]
    if floors[0] != floors[1]:
        words = ["skip" if floor is None else f"floor {floor:g}" for floor in floors]
        raise DataError(
            f"{args.valid_data_path}: prepared with --non_positive {words[1]}, but {args.train_data_path} with "
            f"{words[0]}; prepare both alike"
        )
    data = {"train": train_set.made_of, "valid": valid_set.made_of}
    checkpoint = read_checkpoint(args.resume) if args.resume else None
    if checkpoint is None:
        names = ("last.pth", "best.pth", "loss.csv", "train.log")
        for path in (*(args.outf / name for name in names), *args.outf.glob("net_*epoch.pth")):
            if path.exists():
                raise DataError(
                    f"{path}: a run is here already; go on with it (--resume OUTF/last.pth, once an epoch is "
                    "finished), or choose another --outf"
                )
        torch.manual_seed(args.seed)
        model = DRCR(
            out_channels=len(train_set.wavelengths), channels=args.channels, n_blocks=args.n_blocks, npm=args.npm
        )
        model.wavelengths = train_set.wavelengths
    else:
        if not {"optimizer", "epoch", "iter", "best", "recipe"} <= checkpoint.keys():
            raise DataError(f"{args.resume}: no training state of this program in it; --resume takes OUTF/last.pth")
        model = build_model(checkpoint, args.resume)
        trained_with = {name: model.architecture[name] for name in ("channels", "n_blocks", "npm")}
        different = [
            f"--{option} {value}"
            for option, value in (trained_with | {"precision": "fp32"} | checkpoint["recipe"]).items()
            if value != getattr(args, option)
        ]
        if different:
            raise DataError(f"{args.resume}: was trained with {' '.join(different)}; give the same to go on")
        for part, made_of in (checkpoint.get("data") or data).items():
            changed = [name for name, value in made_of.items() if value != data[part][name]]
            if changed:
                raise DataError(
                    f"{args.resume}: its {part} data had another {', '.join(changed)}; prepare them as before, or "
                    "start anew in another --outf"
                )
        if not same_bands(model.wavelengths or (), train_set.wavelengths):
            raise DataError(f"{args.resume}: was trained for other bands than {args.train_data_path} has")
        if (args.outf / "last.pth").exists():
            newest = read_checkpoint(args.outf / "last.pth")["epoch"]
            if newest > checkpoint["epoch"]:
                raise DataError(
                    f"{args.resume}: is of epoch {checkpoint['epoch']}, but {args.outf / 'last.pth'} is of epoch "
                    f"{newest}; go on with that one, or choose another --outf"
                )
        if checkpoint["epoch"] >= args.end_epoch or checkpoint["iter"] >= args.max_iter:
            print(f"{args.resume}: has come to the end, epoch {checkpoint['epoch']}, iteration {checkpoint['iter']}")
            return
    args.outf.mkdir(parents=True, exist_ok=True)

    loading = {"num_workers": args.num_workers, "pin_memory": device.type == "cuda"}
    if args.num_workers:  # forked, they share what is in memory
        loading |= {"prefetch_factor": 4, "multiprocessing_context": "fork"}
    valid_batches = DataLoader(valid_set, batch_size=1, **loading)
    patches, sampler = train_set, RandomSampler(train_set)
    if args.cache == "gpu":
        patches, loading = PatchesOnDevice(train_set, device), {"collate_fn": PatchesOnDevice.collate}
    train_batches = DataLoader(patches, args.batchSize, sampler=sampler, **loading)
    log(
        args.outf / "train.log",
        f"{len(train_set)} patches of {train_set.patch_size} x {train_set.patch_size}, {len(valid_set)} validation "
        f"images, {describe_bands(train_set.wavelengths)}, {sum(p.numel() for p in model.parameters()):,} "
        f"parameters, on {device}",
    )
    for what, dark_values in (("training", train_set.dark_values), ("validation", valid_set.dark_values)):
        if dark_values:
            log(args.outf / "train.log", f"{what} data, {dark_values}")
    train(model, train_batches, valid_batches, args, device, checkpoint, data)

    best = read_checkpoint(args.outf / "best.pth")
    print(f"best: epoch {best['epoch']}, validation loss {best['best']:.6f}, {args.outf / 'best.pth'}")
    print(f"next: cd ../test && python test.py --model_dir {(args.outf / 'best.pth').resolve()}")


if __name__ == "__main__":
    cli.run(main)
