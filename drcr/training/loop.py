"""The training loop."""

import argparse
import math
import signal
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from tqdm import tqdm

from drcr.compute.device import DelayedReading, Precision, for_training
from drcr.compute.memory import memory_for
from drcr.correction import Correction, Network, network_of
from drcr.metrics import mrae
from drcr.schedule import poly_lr
from drcr.training.batches import EpochBatches, Epochs, Validation
from drcr.training.distributed import World
from drcr.training.recipe import CLIP_NORM, LOSSES, parts_of
from drcr.training.run_folder import Row, RunFolder
from drcr.training.state import RECIPE, make_optimizer
from drcr.utils.cli import Stop
from drcr.utils.files import DataError

PACE_SECONDS = 180
"""How often rate, time left and loss are logged."""
Criterion = Callable[[Tensor, Tensor], Tensor]
"""The loss of output and ground truth."""


def train(
    model: Network,
    epochs: Epochs,
    validation: Validation,
    options: argparse.Namespace,
    device: torch.device,
    folder: RunFolder,
    stop: Stop,
    *,
    checkpoint: dict[str, Any] | None = None,
    data: dict[str, Any] | None = None,
    world: World = World(),  # noqa: B008, it never changes
) -> None:
    """Train a network from its starting weights, or from the training state `checkpoint`.

    `options` are those of train/main.py; `data` is what the batches are made of, for the checkpoints. Raises
    DataError when a loss is not finite, and SystemExit when the user asks to stop, after saving.
    """
    criterion = LOSSES[options.loss]
    train_model = world.wrap(for_training(model, device, compiled=options.compile))
    optimizer = make_optimizer(model, options.init_lr)
    run = Run(model, optimizer, options, folder, world, data)
    if checkpoint:
        run.resume(checkpoint, device)

    while run.epoch < options.end_epoch and (run.iteration < options.max_iter or run.losses):
        train_epoch(run, epochs, train_model, criterion, device, stop)
        valid_loss = validate(model, validation, device, stop, world)
        if valid_loss is None:
            run.save_and_exit(world.any(stop.asked or 0))
        run.check_finite(valid_loss, f"the validation loss of epoch {run.epoch + 1}")
        run.finish_epoch(valid_loss)


def train_epoch(
    run: "Run", epochs: Epochs, train_model: nn.Module, criterion: Criterion, device: torch.device, stop: Stop
) -> None:
    """Train for an epoch, or for what is left of it; the arguments are those of `train`."""
    model, optimizer, options, world = run.model, run.optimizer, run.options, run.world
    clip_norm = CLIP_NORM if "clip" in parts_of(options.recipe) else math.inf
    batches = epochs.batches(run.epoch + 1, run.iteration, skip=len(run.losses))
    if run.losses:  # within an epoch; batches() has set the states of its beginning
        run.restore_random_states()
    reading, scenes = DelayedReading(), []
    progress = run.progress_bar(batches)
    model.train()
    for batch in progress:
        lr = run.learning_rate(run.iteration)
        for group in optimizer.param_groups:
            group["lr"] = lr

        rgb, cube = batch.rgb.to(device, non_blocking=True), batch.cube.to(device, non_blocking=True)
        weight = batch.weight * world.size  # gradients are averaged over the processes
        given = ()
        if isinstance(model, Correction):
            random = torch.Generator().manual_seed(1000003 * options.seed + run.iteration)
            noise = torch.randn(options.batchSize, generator=random)[batch.positions]
            given = (model.training_factor(rgb, cube, noise.to(device)),)
        loss = training_step(
            train_model, optimizer, criterion, rgb, cube, options.precision, weight, clip_norm, given
        )
        run.losses.append(world.sum(loss * batch.weight))
        run.iteration += 1

        loss_before = reading.exchange(run.losses[-1])  # to read the newest would be to wait for the device
        if loss_before is not None:
            run.check_finite(loss_before, f"the loss of iteration {run.iteration - 1}", scenes)
            run.show(progress, loss_before, lr)
        scenes = batch.scenes
        asked = world.any(stop.asked or 0)
        if asked or run.save_is_due():
            run.check_finite(run.losses[-1].item(), f"the loss of iteration {run.iteration}", scenes)
            if asked:
                run.save_and_exit(asked)
            run.save()
    run.check_finite(run.losses[-1].item(), f"the loss of iteration {run.iteration}", scenes)


def training_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    criterion: Criterion,
    rgb: Tensor,
    cube: Tensor,
    precision: Precision,
    weight: float = 1.0,
    clip_norm: float = math.inf,
    given: tuple[Tensor, ...] = (),
) -> Tensor:
    """Train `model`, (N, 3, h, w) -> (N, bands, h, w), on a batch; return the loss, detached, on the device.

    With "bf16" the network computes in bfloat16; weights, gradients, optimizer and loss are float32 in any case.
    `weight` multiplies the loss before its gradients are computed, not what is returned; gradients with a norm above
    `clip_norm` are scaled down; `given` is what the model takes in training beside the images.
    """
    with torch.autocast(rgb.device.type, torch.bfloat16, enabled=precision == "bf16"):
        output = model(rgb.to(memory_format=torch.channels_last), *given)
    loss = criterion(output.float(), cube)
    optimizer.zero_grad()
    (loss * weight).backward()
    if clip_norm < math.inf:
        nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], clip_norm)
    optimizer.step()
    return loss.detach()


@torch.inference_mode()
def validate(
    model: nn.Module, validation: Validation, device: torch.device, stop: Stop, world: World
) -> float | None:
    """Return the MRAE averaged over all images, of all processes; None if the user asks to stop."""
    model.eval()
    losses = torch.zeros(validation.n_images)
    for i, rgb, cube in validation:
        with memory_for(
            f"out of memory on {device}: a validation image of {rgb.shape[2]} x {rgb.shape[3]} pixels is too large; "
            "use smaller images (--size of the scripts in Dataset/), and prepare the validation data again"
        ):
            losses[i] = mrae(model(rgb.to(device)), cube.to(device)).item()
        if stop.asked:
            break
    if world.any(stop.asked or 0):
        return None
    return world.sum(losses).double().mean().item()


@dataclass
class Run:
    """A run of training: what it trains, and how far it has come."""

    model: Network
    optimizer: torch.optim.Optimizer
    options: argparse.Namespace
    folder: RunFolder
    world: World
    data: dict[str, Any] | None
    identity: str = field(default_factory=lambda: uuid.uuid4().hex)
    epoch: int = 0  # how many are finished
    iteration: int = 0  # how many are finished
    best: float = math.inf  # validation loss
    losses: list[Tensor] = field(default_factory=list)  # of the epoch under way
    started: float = field(default_factory=time.perf_counter)  # of the epoch, less the time between two sessions
    saved: float = field(default_factory=time.perf_counter)
    paced: tuple[float, int] | None = None  # when `log_pace` last wrote, and the iteration then
    random: dict[str, Any] | None = None

    def resume(self, checkpoint: dict[str, Any], device: torch.device) -> None:
        """Go on from a checkpoint."""
        groups = self.optimizer.state_dict()["param_groups"]  # the learning rate is set before every iteration
        self.optimizer.load_state_dict({"state": checkpoint["optimizer"]["state"], "param_groups": groups})
        network_of(self.model).load_state_dict(checkpoint["state_dict"])
        self.identity, self.random = checkpoint["run"], checkpoint["random"]
        self.epoch, self.iteration = checkpoint["epoch"], checkpoint["iter"]
        self.losses = list(checkpoint["losses"].to(device))
        self.started = time.perf_counter() - checkpoint["seconds"]
        if (self.folder.path / "best.pth").exists():  # else the run goes on in another folder
            self.best = checkpoint["best"]

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint holds beside the network."""
        return {
            "run": self.identity,
            "epoch": self.epoch,
            "iter": self.iteration,
            "best": self.best,
            "recipe": {option: getattr(self.options, option) for option in RECIPE},
            "data": self.data,
            "losses": torch.stack(self.losses).cpu() if self.losses else torch.empty(0),
            "seconds": time.perf_counter() - self.started,
            "random": {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all()},
            "optimizer": self.optimizer.state_dict(),
        }

    def restore_random_states(self) -> None:
        """Once after `resume`, restore the states of the checkpoint; of the GPUs as many as there are now."""
        if self.random:
            torch.set_rng_state(self.random["cpu"])
            for i, state in enumerate(self.random["cuda"][: torch.cuda.device_count()]):
                torch.cuda.set_rng_state(state, i)
        self.random = None

    def learning_rate(self, iteration: int) -> float:
        """Return the learning rate of iteration 0, 1, 2, ..."""
        return poly_lr(self.options.init_lr, iteration, self.options.max_iter, self.options.decay_power)

    def progress_bar(self, batches: EpochBatches) -> tqdm:
        """Return an epoch's batches behind a progress bar."""
        return tqdm(
            batches,
            desc=f"epoch {self.epoch + 1}/{self.options.end_epoch}",
            initial=len(self.losses),
            total=len(self.losses) + len(batches),
            unit=" patches",
            unit_scale=self.options.batchSize,
            dynamic_ncols=True,
            disable=True if self.options.quiet or not self.world.first else None,  # None: unless it is a terminal
        )

    def show(self, progress: tqdm, loss: float, lr: float) -> None:
        """Every 10 iterations show and log the loss of the iteration before, and the learning rate."""
        if self.iteration % 10 == 1:
            progress.set_postfix(loss=f"{loss:.4f}", lr=f"{lr:.2e}")
            self.folder.log_scalars(self.iteration - 1, {"loss/training": loss})
            self.folder.log_scalars(self.iteration, {"learning rate": lr})
        if not self.options.quiet:
            self.log_pace(progress.total, loss)

    def log_pace(self, per_epoch: int, loss: float) -> None:
        """Every few minutes log how fast the run is and how long it takes yet."""
        now = time.perf_counter()
        then, before = self.paced = self.paced or (now, self.iteration)
        if self.iteration == before or now - then < PACE_SECONDS:
            return
        rate = (self.iteration - before) / (now - then)
        left = (self.options.end_epoch - self.epoch) * per_epoch - len(self.losses)
        hours = min(left, self.options.max_iter - self.iteration) / rate / 3600
        self.folder.log(
            f"epoch {self.epoch + 1}, iteration {self.iteration}: {rate:.2f} iterations per second, "
            f"{hours:.1f} hours left, loss {loss:.4f}"
        )
        self.paced = now, self.iteration

    def check_finite(self, loss: float, what: str, scenes: Sequence[str] = ()) -> None:
        """Raise DataError if a loss is not finite; `scenes` are those of its batch."""
        if math.isfinite(loss):
            return
        advice = f", or check the scenes of its batch with Dataset/check.py: {', '.join(scenes)}" if scenes else ""
        kept = "; last.pth, from before, is kept" if (self.folder.path / "last.pth").exists() else ""
        raise DataError(f"{self.folder.path}: {what} is not finite ({loss}); try a lower --init_lr{advice}{kept}")

    def save_is_due(self) -> bool:
        """Return whether --save_every asks to save now."""
        return self.options.save_every.due(self.iteration, time.perf_counter() - self.saved)

    def save(self) -> None:
        """Save what the run needs to go on from here."""
        if self.folder.writes:
            self.folder.save_last(self.model, **self.state())
        self.saved = time.perf_counter()

    def save_and_exit(self, asked: int) -> NoReturn:
        """Save, say how to go on, and end the program; `asked` is the signal that asked for it."""
        self.save()
        if self.world.first:
            tqdm.write(
                f"stopped by {signal.Signals(asked).name} in epoch {self.epoch + 1}, after iteration "
                f"{self.iteration}; saved. To continue, run the same command with --resume auto"
            )
        self.world.leave()
        raise SystemExit(128 + asked)

    def finish_epoch(self, valid_loss: float) -> None:
        """Write the epoch's results, and begin the next."""
        now = time.perf_counter()
        train_loss = torch.stack(self.losses).double().mean().item()
        lr = self.learning_rate(self.iteration - 1)
        row = Row(self.epoch + 1, self.iteration, now - self.started, lr, train_loss, valid_loss)
        best_before, self.best = self.best, min(self.best, valid_loss)
        self.epoch, self.losses, self.started = row.epoch, [], now
        if self.folder.writes:
            self.folder.save_epoch(row, best_before, self.model, **self.state())
        self.saved = time.perf_counter()
