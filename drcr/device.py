"""Where the network runs, and with which precision."""

import torch


def exact_fp32() -> None:
    """Make fp32 mean fp32 on CUDA.

    PyTorch lets cuDNN round the inputs of fp32 convolutions to TF32's 10 bits of mantissa by default, which is
    not within this project's tolerances of the released numbers.
    """
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def choose_device() -> torch.device:
    """Return CUDA if there is one, else the CPU; in exact fp32."""
    exact_fp32()
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def native_bf16(device: torch.device) -> bool:
    """Tell whether a device computes in bfloat16 itself; where it does not, it is emulated, and slower than fp32.

    On x86: AVX512-BF16 or AMX.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.backends.mkldnn.is_available() and torch.cpu._is_avx512_bf16_supported()
