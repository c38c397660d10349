"""What the commands share: full help, option types, and one line per error that a user can cause."""

import argparse
import errno
import gc
import io
import math
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TextIO, cast

from drcr.utils.files import DataError, is_out_of_memory, printable
from drcr.utils.locks import lock_folder
from drcr.utils.parallel import available_cores


class ManualFormatter(argparse.RawDescriptionHelpFormatter):
    """Help that keeps the paragraphs of the description and shows the default of each option that has one."""

    def __init__(self, prog: str) -> None:
        """Create the formatter of the command `prog`."""
        super().__init__(prog, max_help_position=34, width=116)

    def _format_args(self, action: argparse.Action, default_metavar: str) -> str:
        """Show a metavar of several words as it is, not as `X [X ...]`."""
        if isinstance(action.metavar, str) and " " in action.metavar:
            return action.metavar
        return super()._format_args(action, default_metavar)

    def _get_help_string(self, action: argparse.Action) -> str | None:
        default = action.default
        if default is None or default is False or default in ("", (), argparse.SUPPRESS):
            return action.help
        words = default if isinstance(default, tuple) else [default]
        return f"{action.help} (default: {' '.join(map(str, words)).replace('%', '%%')})"


OTHER_NAMES = {
    "--out": ("--result_dir", "--data_path", "--outf"),
    "--result_dir": ("--outf", "--data_path"),
    "--outf": ("--result_dir",),
    "--spectral_dir": ("--path_gt",),
    "--rgb_dir": ("--RGB_dir",),
    "--checkpoint": ("--model_dir",),
    "--csv": ("--table",),
}
"""Other names of an option, most of them from before: a command takes them for the first of these that it has."""


class Parser(argparse.ArgumentParser):
    """A parser that takes OTHER_NAMES of options and, for an unknown one, names the most similar."""

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:
        """Return the options. Unknown ones end the program, with a suggestion."""
        words = [self._known(word) for word in (sys.argv[1:] if args is None else args)]
        options, unknown = self.parse_known_args(words, namespace)
        for word in unknown:
            name = word.partition("=")[0]
            hint = f"; did you mean {close}?" if (close := self._similar(name)) else "; --help lists all options"
            self.error(f"unknown {'option' if word.startswith('-') else 'argument'} {name}{hint}")
        return options

    def _similar(self, name: str) -> str | None:
        """Return the option whose name, or other name, is most similar to an unknown one."""
        options = {
            **{other: self._known(other) for other in OTHER_NAMES},
            **{o: o for o in self._option_string_actions},
        }
        by_form = {
            form.lower().replace("-", "_"): option
            for form, option in options.items()
            if option in self._option_string_actions
        }
        close = get_close_matches(name.lower().replace("-", "_"), by_form, 1, cutoff=0.75)
        return by_form[close[0]] if close else None

    def _known(self, word: str) -> str:
        """Return a word of the command line; an option's other name as the one that it has here."""
        name, equals, value = word.partition("=")
        if name in self._option_string_actions:
            return word
        here = [other for other in OTHER_NAMES.get(name, ()) if other in self._option_string_actions]
        return f"{here[0]}{equals}{value}" if here else word


def parser(description: str | None) -> Parser:
    """Return the argument parser of a command, whose docstring is `description`."""
    return Parser(description=description, formatter_class=ManualFormatter, allow_abbrev=False)


def at_least(minimum: int) -> Callable[[str], int]:
    """Return the type of an option that is a whole number, at least `minimum`."""

    def whole_number(text: str) -> int:
        value = int(text)
        if not minimum <= value < 2**31:
            raise argparse.ArgumentTypeError(f"must be at least {minimum} and below 2^31, not {value}")
        return value

    return whole_number


def positive(text: str) -> float:
    """Parse an option that is a finite number above 0."""
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number above 0, not {text}")
    return value


def non_negative(text: str) -> float:
    """Parse an option that is a finite number, at least 0."""
    return 0.0 if float(text) == 0 else positive(text)


class _NonPositive(argparse.Action):
    """Parse `skip` as None and `floor VALUE` as the value."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        match values:
            case ["skip"]:
                setattr(namespace, self.dest, None)
            case ["floor", text]:
                try:
                    floor = positive(text)
                except (ValueError, argparse.ArgumentTypeError):
                    floor = 0.0
                if not 1e-6 <= floor < 1:
                    parser.error(f"argument {option_string}: floor must be a number from 1e-6 to below 1, not {text}")
                setattr(namespace, self.dest, floor)
            case _:
                parser.error(f"argument {option_string}: must be skip or floor VALUE, not {' '.join(values)}")


def add_non_positive(
    parser: argparse.ArgumentParser,
    skip: str = "scenes with any value <= 0 are skipped",
    floor: str = "values of the cubes below VALUE are raised to it, and counted",
) -> None:
    """Add the option --non_positive, which sets `floor` to None or the value. `skip` and `floor` go into its help."""
    parser.add_argument(
        "--non_positive",
        dest="floor",
        nargs="+",
        action=_NonPositive,
        metavar="skip | floor VALUE",
        help=f"skip (the default): {skip}. floor VALUE: {floor}; VALUE from 1e-6 to below 1",
    )


MAX_METHODS = 6
"""As many as `figures.layout` has line styles for."""


class _AddMethod(argparse.Action):
    """Read NAME=FOLDER, or FOLDER, whose name is then the method's, into a dict of folders by name."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        name, equals, folder = values.partition("=")
        if not equals or Path(values).exists():
            name, folder = Path(values).resolve().name, values
        methods = getattr(namespace, self.dest) or {}
        if not name.strip() or name in ("ground truth", "RGB input", *methods):
            parser.error(f"argument {option_string}: {values}: each method needs its own name; write NAME=FOLDER")
        if len(methods) == MAX_METHODS:
            parser.error(f"argument {option_string}: at most {MAX_METHODS}; more curves cannot be distinguished")
        setattr(namespace, self.dest, {**methods, name: Path(folder)})


def add_path_rec(parser: argparse.ArgumentParser) -> None:
    """Add the option --path_rec: a dict of folders by method, None without any."""
    parser.add_argument(
        "--path_rec",
        action=_AddMethod,
        metavar="[NAME=]FOLDER",
        help="folder of reconstructed cubes, and the method's name (default: the folder's); repeat it for each "
        f"method, up to {MAX_METHODS} (default: ./test_results)",
    )


def add_rgb_suffix(parser: argparse.ArgumentParser) -> None:
    """Add the option --rgb_suffix, which pairs NAME.mat with the image NAME`suffix`."""
    parser.add_argument(
        "--rgb_suffix",
        default="",
        metavar="TEXT",
        help="the image of NAME.mat is NAMETEXT.png or .jpg, such as _clean in NTIRE 2020; other images are ignored",
    )


def add_num_workers(parser: argparse.ArgumentParser, help: str) -> None:
    """Add the option --num_workers; the default is the number of cores."""
    parser.add_argument("--num_workers", type=at_least(0), default=available_cores(), help=help)


class Stop:
    """Within a `with` block, remember Ctrl-C and SIGTERM as a request; a second Ctrl-C stops the program at once."""

    def __init__(self) -> None:
        """Create it with no request."""
        self.asked: signal.Signals | None = None

    def __enter__(self) -> "Stop":
        """Install the signal handlers."""
        self._before = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def _ask(self, number: int, _frame: object) -> None:
        self.asked = signal.Signals(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def __exit__(self, *_: object) -> None:
        """Restore the earlier signal handlers."""
        for number, handler in self._before.items():
            signal.signal(number, handler)


class _Printable:
    """A text stream that writes control characters as escapes: names and texts in files may hold any."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return self._stream.write(printable(text, keep="\n\t"))

    def isatty(self) -> bool:
        return False  # the help has no colours: they are control characters

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _prepare_streams() -> None:
    """Replace streams that the shell closed (>&-) by the null device; what an encoding lacks is printed as escapes.

    Otherwise the next file to be opened would take the stream's number, and get what is printed.
    """
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r+"))  # noqa: SIM115, for the rest of the program
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _drop_output() -> None:
    """Print nothing more to a stdout that takes nothing: Python would complain when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


_held = ExitStack()  # what `run` releases at the end


def hold(folder: Path) -> None:
    """Reserve an output folder until the command ends, by `lock_folder`. Raises DataError if another run has it."""
    _held.enter_context(lock_folder(folder))


@contextmanager
def imports() -> Iterator[None]:
    """Within a `with` block at the top of a command, end with one line if a package is missing."""
    try:
        yield
    except DataError as error:
        sys.exit(f"error: {error}")


def run(main: Callable[[Sequence[str] | None], None], argv: Sequence[str] | None = None) -> None:
    """Run a command's main function with `argv` (None: the command line).

    An error that a user can cause ends in one line on stderr and exit status 1.
    """
    # a scheduler's SIGTERM unwinds like Ctrl-C, so that temporary files are removed
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # as the commands set it during their imports
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if not gc.isenabled():  # as test.py sets it during its imports: what they made is never searched
        gc.freeze()
        gc.enable()
    _prepare_streams()
    try:
        with _held, redirect_stdout(cast(TextIO, _Printable(sys.stdout))):
            main(argv)
            sys.stdout.flush()
    except BrokenPipeError:  # as with `python compute_mrae.py | head`
        _drop_output()
        sys.exit(1)
    except KeyboardInterrupt:
        print("\nstopped; nothing half-written is left", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        line = _describe(error)
        if line is None:
            raise  # not about a user's file: our own bug, shown with its trace
        try:
            sys.stdout.flush()
        except OSError:
            _drop_output()
        sys.exit(f"error: {printable(line)}")


def _describe(error: Exception) -> str | None:
    """Return the line that tells the user of an error; None if it is not one that a user can cause."""
    if isinstance(error, DataError):
        # a DataLoader's worker puts its trace before the message
        return str(error).rsplit("DataError: ", 1)[-1].strip()
    if is_out_of_memory(error):
        return "not enough memory; close other programs, or use smaller data or fewer --num_workers"
    if isinstance(error, OSError):
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        if error.filename is not None or full:
            name = "" if error.filename is None else f"{error.filename}: "
            return f"{name}{error.strerror}" + "; free some space and run the same command again" * full
    return None


def step(folder: Path, command: str) -> None:
    """Print `python COMMAND` as the README shows it and run it in one of the project's folders."""
    print(f"\n$ cd {folder.name} && python {command}", flush=True)
    if subprocess.run([sys.executable, *shlex.split(command)], cwd=folder).returncode:
        raise DataError("stopped: the command above failed")
