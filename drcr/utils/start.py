"""What a command does before its imports, which take seconds; its first import is of this module.

Ctrl-C ends it without a trace until `cli.run` takes over, and Python does not search for garbage among what is
imported, which takes a tenth of a second. In a program that only uses the library nothing happens.
"""

import gc
import signal
import sys
from pathlib import Path

_script = Path(getattr(sys.modules["__main__"], "__file__", None) or ".").resolve()
if _script.parent.parent == Path(__file__).resolve().parents[2]:  # a script in a folder beside `drcr`
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    gc.disable()
