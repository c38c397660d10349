"""Look at reconstructions in a browser; the page is drcr/app/server.py."""

import drcr.utils.start  # isort: skip # noqa: F401
from drcr.utils import cli

with cli.imports():
    from drcr.app.server import main

if __name__ == "__main__":
    cli.run(main)
