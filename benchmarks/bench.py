"""Measure preparation, loading, training and reconstruction, and compare them with the released way.

All ways of a stage are measured in the same run, in turns: each way once, then all again, so that other programs
disturb all alike. The first run of a way does not count, unless it takes more than 20 seconds. Printed: medians and,
in brackets, the fastest and the slowest run; the speed relative to the released way (released.py: the network eager,
float32, contiguous); the peak memory beyond that of the process before; floating-point operations of the plain
convolutions per second, and their ratio to the rate of a matrix product in the same precision, which is measured
between the others. On CUDA if there is a GPU, else on the CPU.

  prepare      a scene of 482 x 512, patches of 128 x 128, stride 64, files compressed as ARAD_1K's are
  train        a step with patches of 128 x 128, network of 100 channels and 10 blocks
  reconstruct  a 482 x 512 image through that network, in memory; on a CPU in ONNX Runtime and OpenVINO, too
  shipped      the same through the network of test/model
  photo        12 megapixels through that network, one way after the other (not in turns); only if asked for

The data are simulated and the weights random. Below the times of reconstruction: how far the results are from the
plain network's. ONNX Runtime and OpenVINO are skipped if they are not installed (pip install onnx onnxscript
onnxruntime openvino), or need more memory than is free.
"""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from measuring import Result, Rooflines, measure
from stages import STAGES, Work, make_scenes
from tables import deviations, figures, machine, table

from drcr.utils import cli
from drcr.utils.files import write_atomically


def measure_stages(stages: list[str], work: Work, rounds: int, rooflines: Rooflines) -> dict[str, list[Result]]:
    """Measure the stages and print a table of each."""
    results = {}
    for stage in stages:
        ways = STAGES[stage].ways(work)
        turns = [ways] if STAGES[stage].in_turns else [[way] for way in ways]
        results[stage] = [result for turn in turns for result in measure(stage, turn, rounds, rooflines)]
        print("\n" + "\n".join(table(stage, STAGES[stage].unit, results[stage], rooflines.medians())), flush=True)
        if stage in ("reconstruct", "shipped"):
            print("\n".join(deviations(results[stage])), flush=True)
    return results


def main(argv: Sequence[str] | None = None) -> None:
    """Read the options, measure, print the tables, write them as JSON."""
    parser = cli.parser(__doc__)
    parser.add_argument("--stages", nargs="+", choices=STAGES, metavar="STAGE", help="measure only these stages")
    parser.add_argument("--rounds", type=cli.at_least(1), default=3, help="measurements of each way")
    parser.add_argument("--quick", action="store_true", help="smaller images, fewer scenes, one round: one minute")
    parser.add_argument("--json", type=Path, default="bench.json", help="file to write")
    args = parser.parse_args(argv)

    cuda = torch.cuda.is_available()
    stages = args.stages or [name for name, stage in STAGES.items() if stage.by_default]
    rounds = 1 if args.quick else args.rounds
    rooflines = Rooflines(args.quick)
    print(f"{machine()['processor']}, {machine()['cores']} cores, PyTorch {torch.__version__}", flush=True)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=".") as folder:
        size, patch = ((146, 160), 64) if args.quick else ((482, 512), 128)
        make_scenes(Path(folder), size, 3)
        work = Work(Path(folder).resolve(), *size, 16 if cuda else 2, patch, args.quick)
        results = measure_stages(stages, work, rounds, rooflines)
        rates = rooflines.medians()
    print("\n" + ", ".join(f"{name} {rate / 1e9:.4g}" for name, rate in rates.items()), "(GFLOP/s, GB/s)")
    if cuda and "train" in results:
        for result in results["train"]:
            print(f"300,000 steps, {result.way.name}: {300000 * result.median / 3600:.1f} hours")
    document = {
        "machine": machine(),
        "options": {"quick": args.quick, "rounds": rounds, "size": size, "batch": work.batch, "patch": patch},
        "rates": rates,
        "stages": {stage: figures(ways) for stage, ways in results.items()},
    }
    write_atomically(args.json, lambda file: file.write(json.dumps(document, indent=1).encode()))
    print(f"figures: {args.json}")


if __name__ == "__main__":
    cli.run(main)
