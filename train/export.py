"""Store a checkpoint to pass it on: a small file for this project, or an ONNX file for other programs.

pth   the network alone, in half precision, without training state. Half precision keeps 11 bits of each weight.
      test.py reads the file like any checkpoint, and computes in fp32.
onnx  the network in fp32, for images of any size, without PyTorch: in ONNX Runtime, OpenVINO, C++, a browser, or
      MATLAB (importNetworkFromONNX). Input `rgb` (1, 3, H, W): RGB divided by its largest value. Output `cube`
      (1, bands, H, W). The metadata has the wavelengths and the encoding of the input. Needs: pip install onnx
      onnxscript
"""

import drcr.utils.start  # isort: skip # noqa: F401
from collections.abc import Sequence
from pathlib import Path

from drcr.checkpoint import load_model, save_checkpoint
from drcr.compute.export import export_onnx
from drcr.correction import network_of
from drcr.networks import add_network_option
from drcr.utils import cli
from drcr.utils.files import DataError, refuse_foreign


def main(argv: Sequence[str] | None = None) -> None:
    """Write the file."""
    parser = cli.parser(__doc__)
    parser.add_argument(
        "--model_dir", type=Path, metavar="FILE", default="./RealWorldResults/best.pth", help="checkpoint to store"
    )
    parser.add_argument("--format", choices=("pth", "onnx"), default="pth", help="file format")
    parser.add_argument("--out", type=Path, help="file to write (default: ./model.pth, or ./model.onnx)")
    add_network_option(parser)
    args = parser.parse_args(argv)
    out = args.out or Path(f"model.{args.format}")
    # a network that was passed on is never replaced
    refuse_foreign(out, lambda _: False, "to be overwritten", "choose another --out, or remove it")

    model = load_model(args.model_dir)
    if args.format == "pth":
        network_of(model).half()
        if not all(parameter.isfinite().all() for parameter in model.parameters()):
            raise DataError(
                f"{args.model_dir}: has weights that half precision cannot store (NaN, or above 65504); "
                "use it as it is"
            )
    out.parent.mkdir(parents=True, exist_ok=True)
    if args.format == "pth":
        save_checkpoint(out, model)
    else:
        export_onnx(model, out)
    print(f"{out}: {out.stat().st_size / 1e6:.1f} MB, {args.model_dir.stat().st_size / 1e6:.1f} MB before")


if __name__ == "__main__":
    cli.run(main)
