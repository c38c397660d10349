"""Training in several processes, on one machine or more: torchrun starts them, `World` tells each its part."""

import os
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

Item = TypeVar("Item")


@dataclass(frozen=True)
class World:
    """All processes of a run: this one's `rank`, from 0, of `size`. Without torchrun there is one."""

    rank: int = 0
    size: int = 1

    @classmethod
    def join(cls) -> "World":
        """Meet the other processes that torchrun has started, if it has: by NCCL on CUDA, by gloo on the CPU."""
        if "TORCHELASTIC_RUN_ID" not in os.environ:
            return cls()
        backend = "gloo"
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
            backend = "cpu:gloo,cuda:nccl"
        store, rank, size = next(dist.rendezvous("env://"))
        if os.environ["GROUP_WORLD_SIZE"] == "1":
            # After a restart the store still has the addresses of the processes before. (Of several machines each
            # has a count of its own.)
            store = dist.PrefixStore(f"restart{os.environ['TORCHELASTIC_RESTART_COUNT']}", store)
        dist.init_process_group(backend, store=store, rank=rank, world_size=size)
        return cls(rank, size)

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes and prints."""
        return self.rank == 0

    def share(self, items: list[Item]) -> list[Item]:
        """Return this process' part of a list."""
        return items[self.rank :: self.size]

    def wrap(self, model: nn.Module) -> nn.Module:
        """Let the processes average their gradients."""
        return nn.parallel.DistributedDataParallel(model) if self.size > 1 else model

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum over the processes, of tensors of one size."""
        if self.size > 1:
            values = values.clone()
            dist.all_reduce(values)
        return values

    def any(self, number: int) -> int:
        """Return the largest of the processes' numbers; all must ask."""
        if self.size == 1:
            return number
        largest = torch.tensor(number)
        dist.all_reduce(largest, dist.ReduceOp.MAX)
        return int(largest)

    def leave(self) -> None:
        """Wait for the others, and part."""
        if self.size > 1:
            dist.barrier()
            dist.destroy_process_group()


def restarted() -> bool:
    """Tell whether torchrun has started the run anew (--max_restarts), after a process of it was killed."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)) > 0
