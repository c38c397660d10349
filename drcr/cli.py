"""What the scripts share: manual-page help, and one line for what a user can cause."""

import argparse
import signal
import sys
from collections.abc import Callable

from drcr.files import DataError


class ManualFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Help that keeps the description's paragraphs and shows each option's default."""


def parser(description: str, epilog: str | None = None) -> argparse.ArgumentParser:
    """Return an argument parser for a script; `description` is usually its docstring."""
    return argparse.ArgumentParser(
        description=description, epilog=epilog, formatter_class=ManualFormatter, allow_abbrev=False
    )


def positive_int(text: str) -> int:
    """Read an option that counts something: 1 or more."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, not {value}")
    return value


def run(main: Callable[[], None]) -> None:
    """Run a script's main function; what a user can cause ends in one line on stderr and exit status 1."""
    # as other command-line tools have it: `python compute_mrae.py ... | head` ends in silence
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        main()
    except DataError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        if error.filename is None:
            raise  # not about a user's file: a fault of ours, with its trace
        sys.exit(f"error: {error.filename}: {error.strerror}")
    except KeyboardInterrupt:
        sys.exit(130)
