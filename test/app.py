"""Look at reconstructions in a browser; the page is drcr/app/server.py."""

import signal

if __name__ == "__main__":  # Ctrl-C during the imports, which take seconds, ends without a trace
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from drcr.app.server import main
from drcr.utils import cli

if __name__ == "__main__":
    cli.run(main)
