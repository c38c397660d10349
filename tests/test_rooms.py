"""The rooms of the library: imports run one way, without a circle."""

import ast

import pytest
from helpers import ROOT

LIBRARY = ROOT / "drcr"
# what each room may import; of `compute`, among the flat files, only those that run the network
ALLOWED = {
    "utils": {"utils"},
    "compute": {"compute", "model", "networks", "utils"},
    "flat": {"flat", "utils"},
    "formats": {"formats", "cube", "utils"},
    "preparation": {"preparation", "formats", "flat", "utils"},
    "training": {"training", "preparation", "flat", "compute", "utils"},
    "scoring": {"scoring", "formats", "flat", "utils"},
    "figures": {"figures", "scoring", "formats", "flat", "utils"},
    "confidence": {"confidence", "scoring", "formats", "flat", "utils"},
    "stress": {"stress", "confidence", "figures", "scoring", "preparation", "formats", "flat", "utils"},
    "app": {"app", "confidence", "figures", "scoring", "preparation", "formats", "flat", "utils"},
}
RUN_THE_NETWORK = ("inference", "checkpoint", "app.server")


def imports(path):
    """Return the modules of the library that a file imports, anywhere in it, as `preparation.prepare`."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute here"
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    modules = {".".join(file.relative_to(LIBRARY).with_suffix("").parts) for file in LIBRARY.rglob("*.py")}
    return {name.removeprefix("drcr.") for name in found if name.startswith("drcr.")} & modules


def room(module):
    """Return the room of a module; flat files share one."""
    return module.split(".")[0] if "." in module else "flat"


FILES = sorted(path for path in LIBRARY.rglob("*.py") if path.name != "__init__.py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(LIBRARY)))
def test_no_room_imports_one_above_it(path):
    module = ".".join(path.relative_to(LIBRARY).with_suffix("").parts)
    allowed = ALLOWED[room(module)] | ({"compute"} if module in RUN_THE_NETWORK else set())
    for imported in imports(path):
        assert room(imported) in allowed or imported in allowed, f"{module} imports {imported}"


def test_no_circle():
    graph = {".".join(p.relative_to(LIBRARY).with_suffix("").parts): imports(p) for p in FILES}
    while graph:
        leaves = {module for module, needed in graph.items() if not needed & graph.keys()}
        assert leaves, f"a circle among {sorted(graph)}"
        graph = {module: needed for module, needed in graph.items() if module not in leaves}
