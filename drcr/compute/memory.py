"""How much memory is free."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from drcr.utils.files import DataError


def free_memory(device: torch.device) -> int:
    """Return the bytes that may still be used on a device; on the CPU within the limits of a container, too."""
    if device.type == "cuda":
        reusable = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + reusable
    free = _read_field(Path("/proc/meminfo"), "MemAvailable:") * 1024
    for limit, used, cached in _control_groups():
        try:
            free = min(free, int(limit.read_text()) - int(used.read_text()) + _read_field(*cached))
        except (OSError, ValueError):  # no limit: no such file, or the word "max"
            continue
    return max(free, 0)


def activation_bytes(model: nn.Module, device: torch.device, size: int, precision: str) -> int:
    """Return the bytes that training keeps of a patch of `size` x `size` pixels until it has its gradients."""

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
            _output = model(rgb)  # whose graph keeps the tensors, and so their addresses, apart
        return sum(tensors.values())

    return kept(2) - kept(1)  # without the weights


@contextmanager
def memory_for(what: str) -> Iterator[None]:
    """Raise DataError with the line `what` if memory runs out within the block, on CPU or CUDA."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        # oneDNN does not tell more than that it "could not create a primitive", or "execute" it
        words = ("memory", "could not create a primitive", "could not execute a primitive")
        if isinstance(error, RuntimeError) and not any(part in str(error) for part in words):
            raise
        raise DataError(what) from error


def _read_field(path: Path, name: str) -> int:
    """Return the number behind a name at the start of a line."""
    words = (line.split() for line in path.read_text().splitlines())
    return next(int(number) for first, number, *_ in words if first == name)


def _control_groups() -> Iterator[tuple[Path, Path, tuple[Path, str]]]:
    """Yield (limit, use, cached files' part of it) of this process's control groups, of version 1 and 2."""
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
