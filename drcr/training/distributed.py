"""Training in several processes, on one machine or more, which torchrun starts."""

import importlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

Item = TypeVar("Item")


@dataclass(frozen=True)
class World:
    """The processes of a run: `rank` (from 0) of this process, and their number `size`; 1 without torchrun."""

    rank: int = 0
    size: int = 1

    @classmethod
    def join(cls) -> "World":
        """Join the processes that torchrun started, if it did: by NCCL on GPUs, by gloo on CPUs."""
        if "TORCHELASTIC_RUN_ID" not in os.environ:
            return cls()
        # first: at its import its functions take the group that there is as a default, and so keep it. The group's
        # threads would outlive `leave`, and now and then such a thread aborts a finished process while Python ends
        importlib.import_module("torch.distributed.nn.functional")
        backend = "gloo"
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
            backend = "cpu:gloo,cuda:nccl"
        store, rank, size = next(dist.rendezvous("env://"))  # pyright: ignore[reportPrivateImportUsage]
        if os.environ["GROUP_WORLD_SIZE"] == "1":
            # after a restart the store still holds the addresses of the old processes; with several machines, each
            # has its own count of restarts
            prefix = f"restart{os.environ['TORCHELASTIC_RESTART_COUNT']}"
            store = dist.PrefixStore(prefix, store)  # pyright: ignore[reportPrivateImportUsage]
        dist.init_process_group(backend, store=store, rank=rank, world_size=size)
        return cls(rank, size)

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        """Return this process' share of a list."""
        return items[self.rank :: self.size]

    def wrap(self, model: nn.Module) -> nn.Module:
        """Return the network as a module that averages the gradients over the processes."""
        return nn.parallel.DistributedDataParallel(model) if self.size > 1 else model

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum of the processes' tensors, which have the same shape."""
        if self.size > 1:
            values = values.clone()
            dist.all_reduce(values)
        return values

    def any(self, number: int) -> int:
        """Return the largest of the processes' numbers. All processes must call it."""
        if self.size == 1:
            return number
        largest = torch.tensor(number)
        dist.all_reduce(largest, dist.ReduceOp.MAX)
        return int(largest)

    def leave(self) -> None:
        """Wait for the other processes, and leave."""
        if self.size > 1:
            dist.barrier()
            dist.destroy_process_group()


def restarted() -> bool:
    """Return whether torchrun has restarted the run (--max_restarts) after one of its processes was killed."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)) > 0
