"""The package as it is installed, and the pages: what they name exists."""

import ast
import re
import subprocess
import sys
from itertools import chain

import pytest
from helpers import ROOT, load_script

import drcr

COMMANDS = ("train", "test", "Dataset", "figure", "benchmarks", "experiments")
IMPORTED_AS = {
    "opencv-python-headless": "cv2",
    "pillow": "PIL",
    "scikit-image": "skimage",
    "colour-science": "colour",
    "pillow-heif": "pillow_heif",
}


@pytest.fixture(scope="module")
def declared():
    """Return what pyproject.toml says."""
    tomllib = pytest.importorskip("tomllib", reason="reading pyproject.toml needs Python 3.11")
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def modules_of(requirements):
    """Return the names under which the packages of a list such as `["numpy>=1.26"]` are imported."""
    names = [re.match(r"[\w.-]+", requirement)[0].lower() for requirement in requirements]
    return {IMPORTED_AS.get(name, name) for name in names}


def imports(path):
    """Return the packages that a file imports when it is loaded, and those that it imports later, if at all."""
    now, later = set(), set()

    def visit(node, found):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module.split(".")[0])
        inside = isinstance(node, (ast.FunctionDef, ast.With)) or (
            isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        )
        for child in ast.iter_child_nodes(node):
            visit(child, later if inside else found)

    visit(ast.parse(path.read_text()), now)
    ours = {file.stem for folder in (*COMMANDS, "tests") for file in (ROOT / folder).glob("*.py")} | {"drcr"}
    return now - ours - sys.stdlib_module_names, later - ours - sys.stdlib_module_names


LIBRARY = sorted((ROOT / "drcr").rglob("*.py"))
SCRIPTS = [ROOT / "demo.py", *sorted(file for folder in COMMANDS for file in (ROOT / folder).glob("*.py"))]
TESTS = sorted((ROOT / "tests").glob("*.py"))


GUARDED = ("drcr/formats/tiff.py", "drcr/app/guard.py", "figure/abstract.py")
"""Modules that import extras at the top: what imports them, or what they import first, names the extra."""


def test_every_import_is_declared(declared):
    required = modules_of(declared["project"]["dependencies"])
    extras = modules_of(chain.from_iterable(declared["project"]["optional-dependencies"].values()))
    for path in LIBRARY + SCRIPTS:
        now, later = imports(path)
        if path.parent.name == "experiments":  # they need everything
            now, later = set(), now | later
        if str(path.relative_to(ROOT)) not in GUARDED:
            assert now <= required, f"{path}: imports {now - required} although it is an extra"
        assert later <= required | extras, f"{path}: {later - required - extras} not declared"
    for path in TESTS:
        assert set.union(*imports(path)) <= required | extras, path


def test_an_install_has_every_module_and_file(declared):
    kept = declared["tool"]["setuptools"]["package-data"]["*"]
    for path in (ROOT / "drcr").rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            package = path.parent.parent if path.parent.name in ("templates", "static") else path.parent
            assert (package / "__init__.py").is_file(), f"{package} is no package"
            assert path.suffix == ".py" or any(path.match(pattern) for pattern in kept), path


def test_citation_and_package_have_the_same_version(declared):
    assert f"\nversion: {declared['project']['version']}\n" in (ROOT / "CITATION.cff").read_text()


def run(code):
    """Run code in a new process, in which nothing is imported yet; return what it prints."""
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def test_importing_the_package_imports_nothing_large():
    assert run("import sys, drcr; print(sorted({'torch', 'numpy', 'cv2'} & sys.modules.keys()))") == "[]"
    names = run("from drcr import DRCR, load_model, reconstruct; print(DRCR.__name__, load_model.__name__)")
    assert names == "DRCR load_model"


def test_the_public_names_are_there():
    assert set(drcr.__all__) <= set(dir(drcr))
    assert all(callable(getattr(drcr, name)) for name in drcr.__all__)
    assert not hasattr(drcr, "nothing")


PAGES = sorted(
    page
    for pattern in ("*.md", "*/*.md", "*/*/*.md")
    for page in ROOT.glob(pattern)
    if not any(part.startswith(".") for part in page.relative_to(ROOT).parts)
)
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def prose(page):
    """Return a page without its blocks of code."""
    return BLOCK.sub("", page.read_text())


def anchors(page):
    """Return the anchors of a page's headings, as GitHub names them."""
    headings = re.findall(r"^#+ (.*)", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@each_page
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"https?:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@each_page
def test_files_that_a_page_names_exist(page):
    named = re.compile(rf"`((?:drcr|tests|{'|'.join(COMMANDS)})/[\w./-]+\.(?:py|md|txt|csv|json|png|pdf|npz|pth))`")
    for name in named.findall(prose(page)):
        assert (ROOT / name).is_file() or (page.parent / name).is_file(), name


def commands(page):
    """Yield the commands of a page: the folders that they may be in, the script or `make`, its arguments."""
    for language, block in BLOCK.findall(page.read_text()):
        folder = page.parent
        for line in block.replace("\\\n", " ").splitlines() if language in ("", "bash") else ():
            if line.startswith("cd "):
                folder = (folder / line.split()[1]).resolve()
                assert folder.is_dir(), line
            elif re.match(r"(\S*python|torchrun|srun|make) ", line):
                yield [folder], line.split("#")[0].split()
    for code in re.findall(r"`([^`\n]+)`", prose(page)):
        if re.match(r"(python |make |\w+\.py --)", code):
            yield [page.parent, *(ROOT / folder for folder in ("", *COMMANDS))], code.split()


@each_page
def test_commands_and_their_options_exist(page, script):
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for folders, words in commands(page):
        if words[0] == "make":
            assert words[1] in targets, words
            continue
        name = next((word for word in words if word.endswith(".py")), None)
        if name is None or "pytest" in words:
            assert "-m" in words, words
            continue
        paths = [folder / name for folder in folders if (folder / name).is_file()]
        assert paths, words
        options = {word.split("=")[0] for word in words[words.index(name) :] if word.startswith("--")}
        if options:
            manual = script(str(paths[0].resolve().relative_to(ROOT)), "--help").stdout
            assert options <= set(re.findall(r"--\w+", manual)), words


def test_the_readmes_python_imports_what_exists():
    (code,) = [block for language, block in BLOCK.findall((ROOT / "README.md").read_text()) if language == "python"]
    lines = ast.parse(code).body
    assert len(lines) > 3
    exec("\n".join(ast.unparse(line) for line in lines if isinstance(line, ast.ImportFrom)), {})


PROGRAMS = sorted(
    str(path.relative_to(ROOT))
    for path in (ROOT / "demo.py", *(path for folder in COMMANDS for path in (ROOT / folder).glob("*.py")))
    if "def main(" in path.read_text()
)


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_command_has_a_manual(script, name):
    # two as programs: a process takes seconds of imports, and other tests start the rest
    manual = script(name, "--help", process=name in ("demo.py", "benchmarks/bench.py")).stdout
    assert manual.startswith("usage: ")
    if name != "Dataset/import_cave.py":  # which prints that of import_cubes.py
        assert (load_script(name).__doc__ or "").splitlines()[0] in manual
