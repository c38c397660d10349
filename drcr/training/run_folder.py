"""The folder of a run: its table of losses, log, curves and checkpoints."""

import csv
import math
import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from drcr.checkpoint import save_checkpoint
from drcr.correction import Network
from drcr.training.state import read_state
from drcr.utils.files import DataError, refuse_foreign, write_csv

KEEP_WITHIN = 1e-4  # of the best validation loss: such epochs keep their checkpoint
Draw = Callable[[Path, Path], None]
"""Draws a picture, the first path, of a loss.csv, the second."""


class Row(NamedTuple):
    """A row of loss.csv."""

    epoch: int
    iteration: int
    seconds: float
    learning_rate: float
    train_loss: float
    valid_loss: float


@dataclass(frozen=True)
class Every:
    """How often to save: after so many iterations, or seconds."""

    amount: float
    timed: bool = False

    def due(self, iteration: int, seconds: float) -> bool:
        """Return whether to save after this iteration, `seconds` after the last save."""
        return seconds >= self.amount if self.timed else iteration % self.amount == 0


class RunFolder:
    """The folder of a run. In a run of several processes one of them writes."""

    def __init__(
        self, path: Path, keep: int = 2, draw: Draw | None = None, tensorboard: bool = False, writes: bool = True
    ) -> None:
        """Touch nothing yet.

        Kept are `keep` of last.pth, last-1.pth, ...; `draw` draws curves.png after each epoch, handed in so that
        training needs no plotting library. Without `writes`, of all but one process, the writing methods do nothing.
        """
        self.path, self._keep, self._draw, self._tensorboard, self.writes = path, keep, draw, tensorboard, writes
        self._rows: list[Row] = []
        self._board: Any = None
        self._runs: dict[Path, str | None] = {}
        """The runs of the checkpoints that `find_last` read."""

    # ---- what is there at the start

    def find_last(self) -> tuple[Path, dict[str, Any]] | None:
        """Return the newest checkpoint that `save_last` left, and its path; None if there is none.

        Damaged ones are skipped with a warning. Raises DataError if all are damaged.
        """
        found, damaged = [], None
        for path in self._find_lasts():
            try:
                checkpoint = read_state(path)
                self._runs[path] = checkpoint["run"]
                found.append((checkpoint["iter"], checkpoint["epoch"], path.stat().st_mtime_ns, path, checkpoint))
            except DataError as error:
                damaged = error
                print(f"warning: {error}", file=sys.stderr)
        if damaged and not found:
            raise damaged
        return max(found, key=lambda entry: entry[:3])[3:] if found else None

    def _find_lasts(self) -> list[Path]:
        return [
            path for path in sorted(self.path.glob("last*.pth")) if re.fullmatch(r"last(-new|-\d+)?\.pth", path.name)
        ]

    def check_unused(self, resuming: bool) -> None:
        """Raise DataError if the folder contains a run, or files that are not ours and that a run would replace.

        With `resuming` only a finished epoch counts as a run: one that was stopped earlier is started again.
        """
        names = ["best.pth", "net_*epoch.pth"]
        if not resuming:
            names += ["last.pth", "last-*.pth", "loss.csv", "train.log"]
        if found := next((path for name in names for path in self.path.glob(name)), None):
            raise DataError(f"{found}: this folder already contains a run; use --resume auto, or another --outf")
        self._refuse_foreign_files()

    def check_same_run(
        self, checkpoint: dict[str, Any], path: Path, newest: tuple[Path, dict[str, Any]] | None
    ) -> None:
        """Raise DataError if the folder contains another run than a checkpoint's, or a newer state of the same run.

        `newest` is what `find_last` returned.
        """
        runs = ({newest[0]: newest[1]["run"]} if newest else {}) | self._runs
        for other in (self.path / "best.pth", *self.path.glob("net_*epoch.pth")):
            match = re.fullmatch(r"net_(\d{1,9})epoch\.pth", other.name)
            # of the others it goes on from a later epoch, and does not write them
            if other.exists() and (match is None or int(match[1]) > checkpoint["epoch"]):
                runs[other] = read_state(other)["run"]
        for other, run in runs.items():
            if run != checkpoint["run"]:
                raise DataError(f"{other}: not of the same run as {path}; choose another --outf")
        if newest and newest[1]["iter"] > checkpoint["iter"]:
            raise DataError(
                f"{path}: is at iteration {checkpoint['iter']}, but {newest[0]} is at {newest[1]['iter']}; use "
                "--resume auto, or another --outf"
            )
        self._refuse_foreign_files()

    def _refuse_foreign_files(self) -> None:
        lasts = [(path.name, _is_checkpoint, "a checkpoint of this program") for path in self._find_lasts()]
        for name, is_ours, what in (
            ("loss.csv", _is_table, "a run's table"),
            ("train.log", _is_log, "a run's log"),
            ("curves.png", _is_picture, "a picture of this program"),
            *lasts,
        ):
            refuse_foreign(self.path / name, is_ours, what, "move it, or choose another --outf")

    # ---- what is written

    def open(self, epoch: int = 0, iteration: int = 0) -> "RunFolder":
        """Make the folder, and read its loss.csv up to the epoch from which the run goes on; use it in a `with`.

        Raises DataError if loss.csv is damaged.
        """
        self._rows = [row for row in read_rows(self.path / "loss.csv") if row.epoch <= epoch]
        if self.writes:
            self.path.mkdir(parents=True, exist_ok=True)
            if self._tensorboard:
                from torch.utils.tensorboard import SummaryWriter  # an optional install

                self._board = SummaryWriter(self.path / "tensorboard", purge_step=iteration + 1)
        return self

    def __enter__(self) -> "RunFolder":
        """Return the folder."""
        return self

    def __exit__(self, *_: object) -> None:
        """Write out what TensorBoard still holds."""
        if self._board:
            self._board.close()

    def log(self, line: str) -> None:
        """Print a line and append it, with the time, to train.log."""
        if not self.writes:
            return
        tqdm.write(line)
        path = self.path / "train.log"
        try:
            # a link is not followed: it would fill the file behind it
            with open(path, "a", opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW, 0o666)) as file:
                file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n")
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from error  # a full disk names no file

    def log_scalars(self, iteration: int, values: dict[str, float]) -> None:
        """Write numbers for TensorBoard, by name."""
        if self._board:
            for name, value in values.items():
                self._board.add_scalar(name, value, iteration)

    def save_last(self, model: Network, **state: Any) -> None:
        """Write last.pth; the one before it becomes last-1.pth, and so on.

        Killed at any moment, or on a full disk, it leaves what `find_last` finds.
        """
        new = self.path / "last-new.pth"
        save_checkpoint(new, model, **state)
        names = [self.path / "last.pth", *(self.path / f"last-{i}.pth" for i in range(1, self._keep))]
        for older, newer in zip(names[:0:-1], names[-2::-1], strict=True):
            if newer.exists():
                os.replace(newer, older)
        os.replace(new, names[0])

    def save_epoch(self, row: Row, best_before: float, model: Network, **state: Any) -> None:
        """Write what an epoch leaves: a row, a line in the log, checkpoints, and last the curves."""
        self._rows.append(row)
        write_rows(self.path / "loss.csv", self._rows)
        self.log(
            f"epoch {row.epoch}, iteration {row.iteration}, {row.seconds:.1f} s, learning rate "
            f"{row.learning_rate:.9f}, training loss {row.train_loss:.6f}, validation loss {row.valid_loss:.6f}"
        )
        if row.valid_loss < best_before:
            save_checkpoint(self.path / "best.pth", model, valid_loss=row.valid_loss, **state)
        if row.valid_loss < best_before + KEEP_WITHIN:
            save_checkpoint(self.path / f"net_{row.epoch}epoch.pth", model, valid_loss=row.valid_loss, **state)
        self.save_last(model, **state)
        losses = {"loss/training, mean of the epoch": row.train_loss, "loss/validation, MRAE": row.valid_loss}
        self.log_scalars(row.iteration, losses)
        if self._draw:
            self._draw(self.path / "curves.png", self.path / "loss.csv")


def read_rows(path: Path) -> list[Row]:
    """Return the rows of a loss.csv; none if there is no such file. Raises DataError if it is damaged."""
    if not path.is_file():
        return []
    rows: list[Row] = []
    with open(path, newline="") as file:
        for number, cells in enumerate(list(csv.reader(file))[1:], 2):
            try:
                row = Row(int(cells[0]), int(cells[1]), *map(float, cells[2:]))
                consistent = all(map(math.isfinite, row)) and (not rows or row.epoch == rows[-1].epoch + 1)
            except (ValueError, TypeError, IndexError):
                consistent = False
            if not consistent:
                raise DataError(f"{path}: line {number} is damaged; repair it, or remove the file")
            rows.append(row)
    return rows


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Write a loss.csv."""
    write_csv(path, [Row._fields, *(row._replace(seconds=f"{row.seconds:.1f}") for row in rows)])


def _is_table(path: Path) -> bool:
    return _begins(path, rb"%s\r?\n" % ",".join(Row._fields).encode())


def _is_log(path: Path) -> bool:
    return not path.is_symlink() and _begins(path, rb"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ")


def _is_checkpoint(path: Path) -> bool:
    return _begins(path, rb"PK\x03\x04.*architecture")  # it may be damaged


def _is_picture(path: Path) -> bool:
    return _begins(path, rb"\x89PNG.*Software\0drcr\.plots")


def _begins(path: Path, pattern: bytes) -> bool:
    """Return whether a file is empty, as a killed program may leave it, or begins like this."""
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        start = file.read(4096)
    return not start or re.match(pattern, start, re.DOTALL) is not None
