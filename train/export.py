"""Store a checkpoint in a small file, to pass it on: the network alone, in half precision, without training state.

Half precision keeps 11 bits of each weight. test.py reads the file like any checkpoint, and computes in fp32.
"""

import signal

if __name__ == "__main__":  # Ctrl-C during the imports, which take seconds, ends without a trace
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from collections.abc import Sequence
from pathlib import Path

from drcr.checkpoint import load_model, save_checkpoint
from drcr.utils import cli
from drcr.utils.files import DataError, refuse_foreign


def main(argv: Sequence[str] | None = None) -> None:
    """Write the file."""
    parser = cli.parser(__doc__)
    parser.add_argument("--checkpoint", type=Path, default="./RealWorldResults/best.pth", help="checkpoint to store")
    parser.add_argument("--out", type=Path, default="../test/model/model.pth", help="file to write")
    args = parser.parse_args(argv)
    # a network that was passed on is never replaced
    refuse_foreign(args.out, lambda _: False, "to be overwritten", "choose another --out, or remove it")

    model = load_model(args.checkpoint).half()
    if not all(parameter.isfinite().all() for parameter in model.parameters()):
        raise DataError(
            f"{args.checkpoint}: has weights that half precision cannot store (NaN, or above 65504); use it as it is"
        )
    args.out.parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint(args.out, model)
    print(f"{args.out}: {args.out.stat().st_size / 1e6:.1f} MB, {args.checkpoint.stat().st_size / 1e6:.1f} MB before")


if __name__ == "__main__":
    cli.run(main)
