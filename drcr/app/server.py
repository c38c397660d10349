"""Look at spectra in a browser: drop a photograph or a cube, click on points, move through the bands.

Starts a page at http://HOST:PORT; needs pip install 'drcr[app]'. A photograph is reconstructed as test.py does and
shown beside its reconstruction; a cube (.mat, ENVI, TIFF, .npy, .npz) is opened as it is, without a network. The page
plots the spectra of points and regions and shows single bands and any three as colours. With the table
NAME.confidence.npz beside the checkpoint it shows where not to trust a reconstruction, as test.py --confidence says
it, and with a ground truth (.mat) the errors, scored as in compute_mrae.py. A point of known reflectance scales the
cube; a lamp makes radiance of it. Downloads: the cube as .mat (equal to test.py's), ENVI or TIFF, the spectra as CSV,
view and plot as PNG or SVG; pixels are named row,column, from 0.

The network needs linear light. One chooses what the image is: a photograph, which is decoded, or linear. The tags of
the file set the choice. An image without tags is taken as a photograph here, which the page says; test.py takes it as
linear.

Only this computer can open the page, unless --host says otherwise. The page is for people who trust each other, not
for the internet. It answers only requests that come from itself, to a name of this computer. It contacts no other
computer.

The last --sessions scenes are kept in memory, 390 MB each with ground truth at 1024 x 1024 pixels, and their files in
a temporary folder that is removed when the program ends, or when it starts again after a crash.
"""

import argparse
import asyncio
import json
import secrets
import shutil
import socket
import tempfile
import threading
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from drcr.checkpoint import MODEL_HELP, fitting_network, load_rgb_model
from drcr.compute.device import choose_device
from drcr.confidence.model import Confidence, load_confidence, table_path
from drcr.correction import Correction
from drcr.cube import WAVELENGTHS
from drcr.formats.mat import write_cube
from drcr.formats.results import FORMATS, write_result
from drcr.images import ENCODINGS, encoding_for, normalise_rgb
from drcr.inference import Reconstructor, origin_of, reconstruct_image
from drcr.networks import add_network_option
from drcr.utils import cli
from drcr.utils.extras import needs
from drcr.utils.files import DataError, check_name

with needs("app", "app.py"):
    import uvicorn
    from starlette.applications import Starlette
    from starlette.background import BackgroundTask
    from starlette.concurrency import run_in_threadpool
    from starlette.exceptions import HTTPException
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.requests import Request
    from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
    from starlette.routing import BaseRoute, Mount, Route
    from starlette.staticfiles import StaticFiles

    from drcr.app.guard import check_pixels, is_full, only_own, temporary_home
    from drcr.app.scene import (
        FLOOR,
        LINEAR,
        PHOTOGRAPH,
        PageScene,
        as_shown,
        is_cube,
        open_cube,
        read_decoded,
        shrink,
        transparent,
    )

HERE = Path(__file__).resolve().parent
TICK = 0.15
"""Seconds between two lines on the progress."""
LAMPS = ("E", "A", "D50", "D65", "FL2", "FL7", "FL11", "LED-B1", "LED-B3", "LED-B5", "HP1")
"""CIE illuminants that the page offers: equal energy, incandescent, daylight, fluorescent, LED, sodium."""


class Cancelled(Exception):
    """Somebody cancelled the work, or closed the page."""


class Progress:
    """What is being done, and how far it is; `cancelled` is set by another thread, `ending` when the program ends."""

    ending = False

    def __init__(self) -> None:
        """Begin."""
        self.stage, self.part, self.cancelled = "Reading", None, False

    def say(self, stage: str, part: float | None = None) -> None:
        """Begin a stage, or tell the part that is done. Raises Cancelled if it was."""
        self.stage, self.part = stage, part
        if self.cancelled or Progress.ending:
            raise Cancelled


@dataclass(frozen=True)
class LoadedNetwork:
    """A network, ready for images, and its table of confidence, if there is one."""

    path: Path
    origin: str
    wavelengths: np.ndarray
    as_stored: bool
    held: bool
    """Whether its spectra are held to the colours of the image."""
    reconstructor: Reconstructor
    table: Confidence | None


def load_network(path: Path) -> LoadedNetwork:
    """Load a network. Raises DataError if it has less than two bands, or does not state their wavelengths."""
    model = load_rgb_model(path, choose_device())
    if model.wavelengths is None or len(model.wavelengths) < 2:
        raise DataError(
            f"{path}: the page needs a network of two bands or more that states their wavelengths; choose another "
            "--model_dir"
        )
    table = load_confidence(path, model) if table_path(path).is_file() else None
    held = isinstance(model, Correction)
    origin = origin_of(model, path) + (f", {model.describe()}" if held else "")
    as_stored = model.input_encoding == "stored"
    return LoadedNetwork(path, origin, np.array(model.wavelengths), as_stored, held, Reconstructor(model), table)


class Work:
    """What the page asks for and takes time; one image at a time runs through a network.

    `folder` is for the files of the scenes.
    """

    def __init__(self, args: argparse.Namespace, folder: Path) -> None:  # noqa: D107
        self.args, self.folder = args, folder
        self.scenes: OrderedDict[str, PageScene] = OrderedDict()
        self.networks: dict[Path, LoadedNetwork] = {}
        self.turn = threading.Lock()
        self.encoding = args.encoding
        if args.model_dir is not None:  # a wrong one shows at the start; the others only where an image needs them
            network = self.network(PHOTOGRAPH)
            self.encoding = encoding_for("stored" if network.as_stored else "linear", args.encoding, args.model_dir)

    def network(self, kind: str) -> LoadedNetwork:
        """Return the network for PHOTOGRAPH or LINEAR."""
        path = fitting_network(self.args.model_dir, kind == PHOTOGRAPH)
        if path not in self.networks:
            self.networks[path] = load_network(path)
        return self.networks[path]

    def keep(self, scene: PageScene) -> dict[str, Any]:
        """Keep a scene; forget the oldest one above --sessions. Returns what the page needs to know of it."""
        token = secrets.token_urlsafe(12)
        self.scenes[token] = scene
        while len(self.scenes) > self.args.sessions:
            _, oldest = self.scenes.popitem(last=False)
            if oldest.files and not any(oldest.files == scene.files for scene in self.scenes.values()):
                shutil.rmtree(oldest.files[0].parent, ignore_errors=True)
        return {"id": token, **scene.describe()}

    def open(self, files: list[Path], choice: str | None, progress: Progress) -> dict[str, Any]:
        """Open what was dropped: a cube, or an image, which is reconstructed as `choice`, or as its tags say."""
        progress.say("Reading the file")
        if is_cube(files):
            scene = open_cube(files)
        elif len(files) > 1:
            raise DataError(f"{files[1]}: one image at a time, or the two files of an ENVI cube")
        else:
            scene = self.reconstruct(files[0], choice or (LINEAR if self.encoding == "linear" else None), progress)
        progress.say("Preparing the view")
        return self.keep(scene)

    def reconstruct(self, path: Path, choice: str | None, progress: Progress) -> PageScene:
        """Return an image with its reconstruction."""
        check_pixels(path)
        image, told, kind = read_decoded(path, choice)
        rgb = shrink(image.stored, self.args.max_side)
        (height, width), (rows, columns) = image.stored.shape[:2], rgb.shape[:2]
        line = f"{path.name}: {width} x {height} pixels"
        if (rows, columns) != (height, width):
            line += f", scaled down to {columns} x {rows} (--max_side), the cube too"
        if min(rows, columns) < 4:
            raise DataError(f"{line}; at least 4 x 4 are needed")
        hidden = transparent(path, image.stored.shape)
        if hidden is not None:
            hidden = shrink(hidden.astype(np.float32), self.args.max_side) > 0.5
        while not self.turn.acquire(timeout=TICK):
            progress.say("Waiting for another image to be finished")
        try:
            network, done = self.network(kind), 0.0
            rgb = normalise_rgb(rgb)

            def advance(pixels: float) -> None:
                nonlocal done
                done += pixels
                progress.say("Reconstructing", done / (rows * columns))

            progress.say("Reconstructing", 0.0)
            cube = reconstruct_image(network.reconstructor, rgb, path, network.path, advance=advance)
        finally:
            self.turn.release()
        progress.say("Preparing the view")
        told += ". The network was trained on images as they are stored" * network.as_stored
        table = network.table
        return PageScene(
            path.stem,
            [line, told],
            cube,
            network.wavelengths,
            f"{network.origin}, image {image.how}",
            photo=as_shown(image, self.args.max_side),
            hidden=hidden,
            maps={} if table is None else table.maps(rgb, cube),
            statement="" if table is None else table.statement,
            factor=None if table is None else table.factor,
            encoding=kind,
            held=network.held,
            files=[path],
        )

    def again(self, scene: PageScene, choice: str, progress: Progress) -> dict[str, Any]:
        """Reconstruct an image again, as a photograph or as linear; ground truth, reference and lamp stay."""
        after = self.reconstruct(scene.files[0], choice, progress)
        after.lamp_file, after.comparison = scene.lamp_file, scene.comparison
        after.adjust(scene.reference, scene.light, scene.comparison.floor if scene.comparison else FLOOR)
        return self.keep(after)

    def example(self, folder: Path, progress: Progress) -> dict[str, Any]:
        """Reconstruct and score a simulated scene, whose files are written to `folder`."""
        progress.say("Simulating a scene")
        image, truth = simulate(folder, min(256, self.args.max_side))
        scene = self.reconstruct(image, LINEAR, progress)
        scene.compare(truth, FLOOR)
        return self.keep(scene)


def simulate(folder: Path, side: int) -> tuple[Path, Path]:
    """Write a simulated scene of `side` x `side` pixels; return the paths of its image and its ground truth."""
    from drcr.camera import PRESETS, Camera
    from drcr.preparation.render import render_rgb
    from drcr.preparation.simulation import SceneModel

    rng = np.random.default_rng()
    cube = SceneModel(size=(side, side), radii=(8, 96), illuminants=("E",)).render(rng)
    image, truth = folder / "simulated.jpg", folder / "simulated_truth.mat"
    image.write_bytes(render_rgb(cube, WAVELENGTHS, Camera(), PRESETS["real-world"], rng, "simulated"))
    write_cube(truth, cube, WAVELENGTHS)
    return image, truth


def attempt(task: Callable[[], dict[str, Any]], folder: Path | None = None) -> dict[str, Any]:
    """Return what a task returns, or what went wrong in words for the page: {"error": ...}.

    `folder`: where its files are; messages leave it out, and after an error it is removed.
    """
    try:
        return task()
    except Cancelled:
        words = "Cancelled."
    except DataError as error:
        words = str(error).replace(f"{folder}/", "")
    except MemoryError:
        words = "Not enough memory on the computer that runs app.py; scale the image down."
    except OSError as error:
        words = f"The computer that runs app.py cannot keep the files: {error.strerror or error}."
        words += " Free some space there, then load the image again." * is_full(error)
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)
    return {"error": words}


def streamed(task: Callable[[Progress], dict[str, Any]], folder: Path | None = None) -> Response:
    """Answer with a line of JSON on the progress every TICK, then with the result of `task`, which runs in a thread.

    If the browser goes away, by the button Cancel or otherwise, the task is cancelled. `folder`: as for `attempt`.
    """
    progress = Progress()

    async def lines() -> AsyncIterator[str]:
        running = asyncio.ensure_future(run_in_threadpool(attempt, lambda: task(progress), folder))
        try:
            while not running.done():
                if Progress.ending:
                    return
                yield json.dumps({"stage": progress.stage, "part": progress.part}) + "\n"
                await asyncio.wait({running}, timeout=TICK)
            yield json.dumps(running.result()) + "\n"
        finally:
            progress.cancelled = True

    return StreamingResponse(lines(), media_type="application/x-ndjson")


class Page:
    """What the server answers; an upload has at most `max_upload` bytes."""

    def __init__(self, work: Work, max_upload: int) -> None:  # noqa: D107
        self.work, self.max_upload = work, max_upload

    def routes(self) -> list[BaseRoute]:
        """Return the routes of the server."""
        posts: dict[str, Any] = {"open": self.open, "example": self.example}
        posts |= {"{id}/again": self.again, "{id}/truth": self.truth, "{id}/adjust": self.adjust}
        return [
            Route("/", lambda _: FileResponse(HERE / "static/page.html")),
            Route("/settings", self.settings),
            *(Route(f"/{path}", only_own(answer), methods=["POST"]) for path, answer in posts.items()),
            Route("/{id}/spectrum", self.spectrum),
            Route("/{id}/view/{name}.png", self.view),
            Route("/{id}/cube/{format}", self.cube),
            Mount("/static", StaticFiles(directory=HERE / "static")),
        ]

    def settings(self, _: Request) -> JSONResponse:
        """Answer what the page needs to know before there is a scene."""
        return JSONResponse({"lamps": LAMPS, "floor": FLOOR, "max_upload": self.max_upload})

    def scene(self, request: Request) -> PageScene:
        """Return the scene that a request names. Raises HTTPException if it is not kept any more."""
        token = request.path_params["id"]
        if token not in self.work.scenes:
            raise HTTPException(404, "This scene is no longer in memory (--sessions); open the file again.")
        self.work.scenes.move_to_end(token)
        return self.work.scenes[token]

    async def receive(self, request: Request) -> list[Path]:
        """Write the files of a request to a folder of their own; `files` in its address has their names and sizes.

        Raises DataError if they are too large or their names cannot be, OSError if the disk is full.
        """
        named = [(Path(name).name, int(size)) for name, size in json.loads(request.query_params["files"])]
        if sum(size for _, size in named) > self.max_upload:
            raise DataError(f"{named[0][0]}: at most {self.max_upload / 1e6:g} MB are taken (--max_upload)")
        folder = Path(tempfile.mkdtemp(dir=self.work.folder))
        try:
            rest, chunks = b"", request.stream()
            for name, size in named:
                check_name(Path(name))
                with open(folder / name, "wb") as file:
                    while size > 0:
                        rest = rest or await anext(chunks)
                        file.write(rest[:size])
                        size, rest = size - len(rest[:size]), rest[size:]
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return [folder / name for name, _ in named]

    async def upload(self, request: Request, task: Callable[[list[Path], Progress], dict[str, Any]]) -> Response:
        """Receive files and answer with what a task makes of them."""
        try:
            files = await self.receive(request)
        except (DataError, OSError) as error:
            found = error  # the name of an exception ends with its block

            def fail() -> dict[str, Any]:
                raise found

            return JSONResponse(attempt(fail), 413 if isinstance(found, DataError) else 507)
        return streamed(lambda progress: task(files, progress), files[0].parent)

    async def open(self, request: Request) -> Response:
        """Open a photograph or a cube."""
        return await self.upload(request, lambda files, progress: self.work.open(files, None, progress))

    async def example(self, _: Request) -> Response:
        """Open a simulated scene."""
        folder = Path(tempfile.mkdtemp(dir=self.work.folder))
        return streamed(lambda progress: self.work.example(folder, progress), folder)

    async def again(self, request: Request) -> Response:
        """Reconstruct an image again as what `as` says."""
        scene, choice = self.scene(request), request.query_params["as"]
        return streamed(lambda progress: self.work.again(scene, choice, progress))

    async def truth(self, request: Request) -> Response:
        """Score a scene against a ground truth."""
        scene, floor = self.scene(request), float(request.query_params["floor"])

        def compare(files: list[Path], progress: Progress) -> dict[str, Any]:
            progress.say("Comparing with the ground truth")
            scene.compare(files[0], floor)
            shutil.rmtree(files[0].parent, ignore_errors=True)
            return scene.describe()

        return await self.upload(request, compare)

    async def adjust(self, request: Request) -> Response:
        """Set what a scene is scaled by: a point of known reflectance, a lamp; and the floor of its ground truth."""
        scene, asked = self.scene(request), await request.json()

        def change() -> dict[str, Any]:
            if "table" in asked:
                scene.lamp_file = scene.files[0].parent / "lamp.csv"
                scene.lamp_file.write_text(asked["table"])
            scene.adjust(asked["reference"], asked["light"], asked["floor"])
            return scene.describe()

        return JSONResponse(await run_in_threadpool(attempt, change))

    def spectrum(self, request: Request) -> JSONResponse:
        """Answer with the spectrum of a region, given by its corners: `box=top,left,bottom,right`."""
        scene = self.scene(request)
        top, left, bottom, right = map(int, request.query_params["box"].split(","))
        return JSONResponse(scene.spectrum((top, left, bottom, right)))

    def view(self, request: Request) -> Response:
        """Answer with a view as a PNG file; `bands`, if it has any, are numbers from 0."""
        numbers = [int(number) for number in request.query_params.get("bands", "").split(",") if number]
        data = self.scene(request).view(request.path_params["name"], numbers)
        return Response(data, media_type="image/png", headers={"Cache-Control": "private, max-age=86400"})

    def cube(self, request: Request) -> Response:
        """Answer with the cube as a file; an ENVI pair comes in a .zip."""
        scene, format = self.scene(request), request.path_params["format"]
        folder = Path(tempfile.mkdtemp(dir=self.work.folder))
        path = folder / f"{scene.name}{FORMATS[format]}"
        answer = attempt(lambda: self._write(scene, path), folder)
        if "error" in answer:
            return JSONResponse(answer, 507)
        if format == "envi":
            path = Path(shutil.make_archive(str(folder), "zip", folder))
        gone = BackgroundTask(lambda: (shutil.rmtree(folder, ignore_errors=True), path.unlink(missing_ok=True)))
        return FileResponse(path, filename=f"{scene.name}{path.suffix}", background=gone)

    def _write(self, scene: PageScene, path: Path) -> dict[str, Any]:
        maps: dict[str, Any] = dict(scene.maps) if path.suffix == ".mat" else {}
        if maps and scene.factor is not None:
            maps["sam_factor"] = scene.factor
        write_result(path, scene.scaled, scene.wavelengths, scene.origin + scene.gain_words, **maps)
        return {}


class Server(uvicorn.Server):
    """A server that ends the work in progress first: else Ctrl-C would wait for it, and then show a trace."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Answer Ctrl-C and SIGTERM."""
        Progress.ending = True
        super().handle_exit(sig, frame)


def serve(args: argparse.Namespace, page: Page) -> None:
    """Answer requests until somebody ends the program. Raises DataError if the port cannot be used."""
    names = ["localhost", "127.0.0.1", "::1", "[::1]", socket.gethostname(), args.host, *(args.allow_host or ())]
    guard = Middleware(TrustedHostMiddleware, allowed_hosts=[name.lower() for name in names], www_redirect=False)
    try:
        family = socket.AF_INET6 if ":" in args.host else socket.AF_INET
        listening = socket.create_server((args.host, args.port), family=family)
    except OSError as error:
        raise DataError(
            f"--port {args.port}: in use, or --host {args.host} is not an address of this computer; choose another"
        ) from error
    app = Starlette(routes=page.routes(), middleware=[guard])
    config = uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1, server_header=False)
    print(f"http://{args.host}:{args.port} (Ctrl-C ends it)", flush=True)
    Progress.ending = False
    Server(config).run(sockets=[listening])


def port(text: str) -> int:
    """Read --port."""
    number = int(text)
    if not 1 <= number <= 65535:
        raise argparse.ArgumentTypeError(f"must be from 1 to 65535, not {number}")
    return number


def main(argv: Sequence[str] | None = None) -> None:
    """Read the options and serve the page."""
    parser = cli.parser(__doc__)
    add = parser.add_argument
    add("--model_dir", type=Path, metavar="FILE", help=MODEL_HELP)
    add(
        "--host",
        default="127.0.0.1",
        help="address to serve at, such as that of this computer in your network; 0.0.0.0: at all of its addresses, "
        "those that --allow_host names",
    )
    add("--allow_host", nargs="+", metavar="NAME ...", help="further names by which browsers may reach it")
    add("--port", type=port, default=7860, help="port to serve at")
    add(
        "--max_side",
        type=cli.at_least(4),
        default=1024,
        help="larger images are scaled down to so many pixels a side",
    )
    add("--sessions", type=cli.at_least(1), default=8, help="number of scenes that are kept in memory")
    add("--max_upload", type=cli.at_least(1), default=500, metavar="MB", help="refuse larger files")
    add(
        "--encoding",
        choices=ENCODINGS,
        default="auto",
        help="the choice beside the picture for a new image. auto and srgb: by the tags of the file, and photograph "
        "where it has none. linear: linear, whatever the tags say",
    )
    add_network_option(parser)
    args = parser.parse_args(argv)
    with temporary_home() as folder:
        serve(args, Page(Work(args, folder), args.max_upload * 1_000_000))
