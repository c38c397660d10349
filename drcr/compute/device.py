"""The device that the network runs on, and its precision."""

from typing import Literal

import torch
from torch import Tensor, nn

from drcr.utils.files import DataError

Precision = Literal["fp32", "tf32", "bf16"]


def exact_fp32() -> None:
    """Switch TF32 off.

    By default PyTorch lets cuDNN round the inputs of fp32 convolutions to TF32's 10 bits of mantissa, which exceeds
    this project's tolerances.
    """
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def native_bf16(device: torch.device) -> bool:
    """Return whether a device has bfloat16 arithmetic (x86: AVX512-BF16 or AMX).

    Other devices emulate it, which is slower than fp32.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if not torch.backends.mkldnn.is_available() or not torch.cpu._is_avx512_bf16_supported():
        return False
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()  # not with ONEDNN_MAX_CPU_ISA=AVX2


def winograd_pays(device: torch.device, precision: Precision, channels: int) -> bool:
    """Return whether Winograd F(6,3) is faster than direct convolution in reconstruction, for so many `channels`.

    It is not in small networks, nor on CUDA, where cuDNN chooses such algorithms itself, nor where AMX multiplies
    bfloat16 ten times as fast as the processor adds. The limits are measured (benchmarks/README.md), and fixed, so
    that a machine always gives the same digits.
    """
    if device.type != "cpu":
        return False
    amx = torch.cpu._is_amx_tile_supported()
    if precision == "bf16":
        return not amx and channels >= 48
    return channels >= (80 if amx else 24)


def choose_device(precision: Precision = "fp32") -> torch.device:
    """Return the GPU if CUDA finds one, else the CPU, set up for a precision.

    Raises
    ------
    DataError
        If the device does not have this precision.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    exact_fp32()
    if precision == "bf16" and not native_bf16(device):
        raise DataError(f"--precision bf16: the {device.type} of this machine has no bfloat16 arithmetic; use fp32")
    if precision == "tf32":
        if device.type != "cuda":
            raise DataError("--precision tf32: only NVIDIA GPUs have it; use fp32 or bf16")
        torch.backends.cudnn.allow_tf32 = True
        torch.backends.cuda.matmul.allow_tf32 = True
    return device


def for_training(model: nn.Module, device: torch.device, *, compiled: bool = False) -> nn.Module:
    """Move a network to a device in channels-last layout, in place; return it, or it compiled by torch.compile.

    Channels last is what tensor cores and oneDNN want. The parameters stay float32, under their names.
    """
    model.to(device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    if compiled:  # for two sizes: full batches, and the last of an epoch
        return torch.compile(model, dynamic=False)  # pyright: ignore[reportReturnType]
    return model


class DelayedReading:
    """Read numbers from a device without waiting for it: each is returned when the next is given."""

    def __init__(self) -> None:
        """Begin with none."""
        self._copy: Tensor | None = None
        self._copied: torch.cuda.Event | None = None

    def exchange(self, value: Tensor) -> float | None:
        """Take a number (a tensor without dimensions); return the number before it, None at first."""
        if self._copied is not None:
            self._copied.synchronize()  # waits for that copy, not for what the device computes now
        before = None if self._copy is None else self._copy.item()
        self._copy = value.to("cpu", non_blocking=True)
        if value.is_cuda:
            self._copied = torch.cuda.Event()
            self._copied.record()
        return before
