"""Where the network runs, and with which precision."""

from typing import Literal

import torch
from torch import Tensor, nn

from drcr.compute import winograd
from drcr.model import DRCR
from drcr.utils.files import DataError

Precision = Literal["fp32", "tf32", "bf16"]


def exact_fp32() -> None:
    """Make fp32 mean fp32 on CUDA.

    PyTorch lets cuDNN round the inputs of fp32 convolutions to TF32's 10 bits of mantissa by default, which is
    not within this project's tolerances of the released numbers.
    """
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def native_bf16(device: torch.device) -> bool:
    """Tell whether a device computes in bfloat16 itself; where it does not, it is emulated, and slower than fp32.

    On x86: AVX512-BF16 or AMX.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.backends.mkldnn.is_available() and torch.cpu._is_avx512_bf16_supported()


def winograd_pays(device: torch.device, precision: Precision, channels: int) -> bool:
    """Tell whether Winograd F(4,3) is faster than direct convolution in reconstruction, for a network of `channels`.

    It is not in small networks, nor on CUDA, where cuDNN chooses such algorithms itself, nor where AMX multiplies
    bfloat16 ten times as fast as the processor adds (benchmarks/README.md).
    """
    if device.type != "cpu" or channels < winograd.CHANNELS:
        return False
    return not (precision == "bf16" and torch.cpu._is_amx_tile_supported())


def choose_device(precision: Precision = "fp32") -> torch.device:
    """Return CUDA if there is one, else the CPU, set up for a precision.

    Raises DataError if that device lacks it.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    exact_fp32()
    if precision == "bf16" and not native_bf16(device):
        raise DataError(
            f"--precision bf16: the {device.type} of this machine does not compute in bfloat16 itself, and would be "
            "slow in it; take fp32"
        )
    if precision == "tf32":
        if device.type != "cuda":
            raise DataError("--precision tf32: only NVIDIA's cards have it; take fp32 or bf16")
        torch.backends.cudnn.allow_tf32 = True
        torch.backends.cuda.matmul.allow_tf32 = True
    return device


def for_training(
    model: DRCR, device: torch.device, precision: Precision = "fp32", compiled: bool = False
) -> nn.Module:
    """Move a network to a device, laid out for speed in a precision, and return what to call in its place.

    Its parameters stay float32, under their names. Channels last, which tensor cores and oneDNN want; `compiled` by
    torch.compile.
    """
    model.to(device, memory_format=torch.channels_last)
    if compiled:
        return torch.compile(model, dynamic=False)  # for two sizes: whole batches, and an epoch's last
    return model


class DelayedReading:
    """Numbers on a device, read without waiting for it: each is returned when the next is given."""

    def __init__(self) -> None:
        """Begin with none."""
        self._copy: Tensor | None = None
        self._copied: torch.cuda.Event | None = None

    def exchange(self, value: Tensor) -> float | None:
        """Take a number, of no dimensions; return the one before it, None at first."""
        if self._copied is not None:
            self._copied.synchronize()  # waits for that copy, some iterations ago, not for what is under way
        before = None if self._copy is None else self._copy.item()
        self._copy = value.to("cpu", non_blocking=True)
        if value.is_cuda:
            self._copied = torch.cuda.Event()
            self._copied.record()
        return before
