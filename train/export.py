"""Store a checkpoint small, to pass it on: the network alone, without the optimiser's state, in half precision.

Half precision keeps 11 bits of each weight; test.py takes such a file as any other, and computes with it in fp32.
"""

from collections.abc import Sequence
from pathlib import Path

from drcr.checkpoint import load_model, save_checkpoint
from drcr.utils import cli
from drcr.utils.files import DataError


def main(argv: Sequence[str] | None = None) -> None:
    """Read the options, write the file."""
    parser = cli.parser(__doc__)
    parser.add_argument("--checkpoint", type=Path, default="./RealWorldResults/best.pth", help="checkpoint to store")
    parser.add_argument("--out", type=Path, default="../test/model/model.pth", help="file to write")
    args = parser.parse_args(argv)
    if args.out.exists():
        raise DataError(f"{args.out}: is there already; choose another --out, or remove it")

    model = load_model(args.checkpoint).half()
    if not all(parameter.isfinite().all() for parameter in model.parameters()):
        raise DataError(f"{args.checkpoint}: has weights that half precision does not hold (NaN, or above 65504)")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint(args.out, model)
    print(f"{args.out}: {args.out.stat().st_size / 1e6:.1f} MB, {args.checkpoint.stat().st_size / 1e6:.1f} MB before")


if __name__ == "__main__":
    cli.run(main)
