"""How much memory is free."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from drcr.utils.files import DataError, is_out_of_memory

MEMINFO = Path("/proc/meminfo")


def free_memory(device: torch.device) -> int:
    """Return the free bytes of a device; on the CPU, those that a container's limit leaves.

    Where the system does not say (no /proc), half of its memory counts as free.
    """
    if device.type == "cuda":
        reusable = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + reusable
    if not MEMINFO.exists():  # as on a Mac, which tells no more
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    free = _read_field(MEMINFO, "MemAvailable:") * 1024
    for limit, used, cached in _control_groups():
        try:
            free = min(free, int(limit.read_text()) - int(used.read_text()) + _read_field(*cached))
        except (OSError, ValueError):  # no limit: no such file, or the word "max"
            continue
    return max(free, 0)


def activation_bytes(model: nn.Module, device: torch.device, size: int, precision: str) -> int:
    """Return the bytes of activations that a training step keeps per patch of `size` x `size` pixels."""

    def kept(count: int) -> int:
        tensors: dict[int, int] = {}

        def keep(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            tensors[storage.data_ptr()] = storage.nbytes()
            return tensor

        model.to(device)
        rgb = torch.zeros(count, 3, size, size, device=device).to(memory_format=torch.channels_last)
        with (
            torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
            torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"),
        ):
            _output = model(rgb)  # its graph keeps the tensors alive, so that no two share an address
        return sum(tensors.values())

    return kept(2) - kept(1)  # without the weights


@contextmanager
def memory_for(what: str) -> Iterator[None]:
    """Raise DataError with the message `what` if memory runs out within the block, on CPU or CUDA."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise DataError(what) from error


def _read_field(path: Path, name: str) -> int:
    """Return the number that follows `name` at the start of a line."""
    words = (line.split() for line in path.read_text().splitlines())
    return next(int(number) for first, number, *_ in words if first == name)


def _control_groups() -> Iterator[tuple[Path, Path, tuple[Path, str]]]:
    """Yield the files with (limit, use, cached part of it) of this process's control groups, versions 1 and 2."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, own = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        root = Path("/sys/fs/cgroup") / controllers
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_cache") if controllers else None
        limit, used, cached = names or ("memory.max", "memory.current", "file")
        group = root / own.lstrip("/")
        for folder in (group, *group.parents):
            yield folder / limit, folder / used, (folder / "memory.stat", cached)
            if folder == root:
                break
