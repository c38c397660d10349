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
