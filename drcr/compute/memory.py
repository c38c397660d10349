"""How much memory is free."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from drcr.utils.files import DataError


def free_memory(device: torch.device) -> int:
    """Return the free bytes of a device; on the CPU, those that a container's limit leaves."""
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
        # all that oneDNN says is that it "could not create a primitive", or "could not execute" it
        words = ("memory", "could not create a primitive", "could not execute a primitive")
        if isinstance(error, RuntimeError) and not any(part in str(error) for part in words):
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
