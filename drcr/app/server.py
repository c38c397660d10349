"""Look at reconstructions in a browser: load an image, slide through its bands, click for spectra.

Starts a page at http://HOST:PORT; needs pip install "gradio>=6.20". The page reconstructs an image as test.py does
and shows it in true colour, band by band, and as it was loaded. With the table NAME.confidence.npz beside the
checkpoint it shows where not to trust it, as test.py --confidence says it. It plots the spectra of clicked pixels
and, with a ground truth (.mat), the errors, scored as in compute_mrae.py. Downloads: the cube as .mat, equal to
test.py's, and the spectra as CSV; pixels are named row,column, from 0.

The network needs linear light. Beside the picture one chooses what the image is: a photograph, which is decoded, or
linear. The tags of the file set the choice. An image without tags is taken as a photograph here, which the page says;
test.py takes it as linear.

Only this computer can open the page, unless --host says otherwise. The page is for people who trust each other, not
for the internet. It answers only requests that come from itself, to a name of this computer. It contacts no other
computer: no fonts, no statistics, no updates.

The cubes of the last --sessions visitors are kept in memory, 260 MB each with ground truth at 1024 x 1024 pixels, and
in a temporary folder that is removed when the program ends, or when it starts again after a crash. Uploaded files are
removed after one to two hours.
"""

import argparse
import html
import os
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from drcr.app.guard import SameSite, check_pixels, is_full, temporary_home
from drcr.app.scene import (
    BAND,
    COLOUR,
    LINEAR,
    NO_POINTS,
    PHOTOGRAPH,
    POINT_COLOURS,
    RGB,
    PageScene,
    hint,
    read_decoded,
)
from drcr.checkpoint import MODEL_HELP, fitting_network, load_rgb_model
from drcr.compute.device import choose_device
from drcr.confidence.model import Confidence, load_confidence, table_path
from drcr.correction import Network
from drcr.cube import WAVELENGTHS, describe_bands
from drcr.formats.mat import write_cube
from drcr.images import ENCODINGS, encoding_for, normalise_rgb
from drcr.inference import Reconstructor, origin_of, reconstruct_image
from drcr.utils import cli
from drcr.utils.files import DataError

Networks = dict[str, tuple[Path, Network]]
"""Checkpoint and network for PHOTOGRAPH and for LINEAR."""
HERE = Path(__file__).resolve().parent
NEEDED_GRADIO = (6, 20)
"""Earlier versions load a script from another server."""
# what Gradio would contact: statistics and updates, a hub, and by a proxy even this page
OFFLINE = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1", "NO_PROXY": "*", "no_proxy": "*"}


@dataclass(frozen=True)
class Parts:
    """The components of the page."""

    state: Any
    status: Any
    image: Any
    encoding: Any
    simulated: Any
    cube_file: Any
    truth: Any
    floor: Any
    view: Any
    picture: Any
    slider: Any
    spectra: Any
    clear: Any
    spectra_file: Any
    scores: Any


def lay_out(gr: Any, wavelengths: np.ndarray) -> Parts:
    """Place the components in the open gr.Blocks."""
    state = gr.State()
    gr.HTML(
        f"<h1>Spectra of a photograph</h1>DRCR Net estimates (it does not measure) {describe_bands(wavelengths)}, "
        "from an RGB image."
    )
    status = gr.HTML(say("Images stay on the computer that runs app.py."))
    with gr.Row(equal_height=False):
        with gr.Column(scale=2, min_width=190):
            image = gr.File(label="RGB image", height=100, elem_id="image", elem_classes="zone")
            encoding = gr.Radio(
                [PHOTOGRAPH, LINEAR],
                value=PHOTOGRAPH,
                label="The image is",
                interactive=False,
                elem_id="encoding",
                elem_classes="views",
            )
            simulated = gr.Button("Use a simulated scene", size="sm")
            cube_file = gr.DownloadButton("Download the cube (.mat)", size="sm", interactive=False)
            truth = gr.File(label="Ground truth (.mat)", height=100, elem_id="truth", elem_classes="zone")
            floor = gr.Number(0.01, step=0.01, label="Raise dark values to")
        with gr.Column(scale=5, min_width=320):
            view = gr.Radio(
                [COLOUR, BAND, RGB], value=COLOUR, show_label=False, container=False, elem_classes="views"
            )
            picture = gr.HTML(
                hint("Drop a photograph on the left, or use a simulated scene."),
                js_on_load="drcr.listen(element, trigger);",
                elem_classes="picture",
            )
            slider = gr.Slider(
                wavelengths.min(),
                wavelengths.max(),
                wavelengths[len(wavelengths) // 2],
                step=float(np.abs(np.diff(wavelengths)).min()),
                label="Band (nm)",
                buttons=[],
            )
        with gr.Column(scale=5, min_width=320):
            spectra = gr.HTML(hint(NO_POINTS), elem_classes="spectra")
            with gr.Row():
                clear = gr.Button("Clear the points", size="sm", min_width=100, interactive=False)
                spectra_file = gr.DownloadButton(
                    "Download spectra (.csv)", size="sm", min_width=100, interactive=False
                )
            scores = gr.HTML()
    return Parts(
        state, status, image, encoding, simulated, cube_file, truth, floor, view, picture, slider, spectra, clear,
        spectra_file, scores,
    )  # fmt: skip


class Handlers:
    """What the page does; each handler returns the new values of components.

    Parameters
    ----------
    gr
        The module gradio.
    parts
        The components.
    networks
        For photographs and for linear images: the checkpoint's path and the network.
    args
        The options: `model_dir`, `encoding` and `max_side`.
    folder
        Folder for the scenes' files.
    """

    def __init__(self, gr: Any, parts: Parts, networks: Networks, args: argparse.Namespace, folder: Path) -> None:  # noqa: D107
        self.gr, self.parts, self.folder = gr, parts, folder
        self.networks = {kind: (path, Reconstructor(model)) for kind, (path, model) in networks.items()}
        self.tables: dict[Path, Confidence] = {
            path: load_confidence(path, model) for path, model in networks.values() if table_path(path).is_file()
        }
        path, model = networks[PHOTOGRAPH]
        self.wavelengths, self.max_side = np.array(model.wavelengths), args.max_side
        self.encoding = encoding_for(model.input_encoding, args.encoding, path)
        self.as_stored = model.input_encoding == "stored"

    def show(self, scene: PageScene, view: str, nm: float) -> dict:
        """Return all that depends on the view, the band and the points."""
        band = int(np.abs(self.wavelengths - nm).argmin())
        return {
            self.parts.status: say(scene.status),
            self.parts.picture: scene.picture(view, band),
            self.parts.spectra: scene.spectra(band),
            self.parts.scores: scene.table(),
            self.parts.spectra_file: self.gr.DownloadButton(
                value=scene.write_spectra(), interactive=bool(scene.points)
            ),
            self.parts.clear: self.gr.Button(interactive=bool(scene.points)),
        }

    def load(self, file: str, nm: float, progress: Callable, choice: str | None = None) -> dict:
        """Reconstruct an image; without a `choice` of PHOTOGRAPH or LINEAR, as its tags say."""
        path, start = Path(file), time.perf_counter()
        choice = choice or (LINEAR if self.encoding == "linear" else None)
        rgb, how, words, choice = read_scaled(path, choice, self.max_side)
        words += ". The network was trained on images as they are stored" * self.as_stored
        done = 0.0

        def advance(pixels: float) -> None:
            nonlocal done
            done += pixels
            progress(done / rgb[..., 0].size, desc="Reconstructing")

        network, reconstructor = self.networks[choice]
        cube = reconstruct_image(reconstructor, rgb, path, network, advance=advance)
        words = f"{words}. Reconstructed in {time.perf_counter() - start:.1f} s."
        scene = PageScene(path.stem, words, rgb, cube, self.wavelengths, self.folder)
        scene.keep(path, choice)
        cube_path = scene.folder / f"{scene.name}.mat"
        maps = self.tables[network].variables(rgb, cube) if network in self.tables else {}
        if maps:
            scene.add_maps(maps, self.tables[network].statement)
        write_cube(cube_path, cube, self.wavelengths, f"{origin_of(network)}, image {how}", **maps)
        return {
            **self.show(scene, COLOUR, nm),
            self.parts.state: scene,
            self.parts.image: None,
            self.parts.encoding: self.gr.Radio(value=choice, interactive=not self.as_stored),
            self.parts.view: self.gr.Radio(choices=scene.choices, value=COLOUR),
            self.parts.cube_file: self.gr.DownloadButton(value=cube_path, interactive=True),
        }

    def switch(self, scene: PageScene | None, choice: str, view: str, nm: float, progress: Callable) -> dict:
        """Reconstruct the image again, as a photograph or as linear; points and ground truth stay."""
        before = loaded(scene)
        if choice == before.encoding:
            return {self.parts.status: self.gr.skip()}
        updates = self.load(str(before.source), nm, progress, choice)
        after = updates[self.parts.state]
        after.points = before.points
        if before.comparison:
            after.score(before.comparison.truth, before.comparison.floor)
        view = view if view in after.choices else COLOUR
        radio = self.gr.Radio(choices=after.choices, value=view)
        return updates | self.show(after, view, nm) | {self.parts.view: radio}

    def compare(self, file: str, scene: PageScene | None, view: str, nm: float, floor: float) -> dict:
        """Score the reconstruction against a ground truth."""
        scene = loaded(scene)
        scene.compare(Path(file), checked(floor))
        choices = self.gr.Radio(choices=scene.choices)
        return {**self.show(scene, view, nm), self.parts.truth: None, self.parts.view: choices}

    def example(self, nm: float, floor: float, progress: Callable) -> dict:
        """Reconstruct and score a simulated scene."""
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            image_path, truth_path = simulate(Path(folder), min(256, self.max_side))
            shown = self.load(str(image_path), nm, progress, LINEAR)
            return shown | self.compare(str(truth_path), shown[self.parts.state], COLOUR, nm, floor)

    def rescore(self, scene: PageScene | None, view: str, nm: float, floor: float) -> dict:
        """Score again with another floor."""
        if scene is None or scene.comparison is None or scene.comparison.floor == floor:
            return {self.parts.status: self.gr.skip()}
        scene.score(scene.comparison.truth, checked(floor))
        return self.show(scene, view, nm)

    def pick(self, scene: PageScene | None, view: str, nm: float, row: int, column: int) -> dict:
        """Add a point."""
        scene = loaded(scene)
        height, width = scene.cube.shape[:2]
        point = min(max(row, 0), height - 1), min(max(column, 0), width - 1)
        if len(scene.points) == len(POINT_COLOURS):
            raise DataError(f"At most {len(POINT_COLOURS)} points; clear them to choose others.")
        if point not in scene.points:
            scene.points.append(point)
        return self.show(scene, view, nm)

    def wipe(self, scene: PageScene | None, view: str, nm: float) -> dict:
        """Remove the points."""
        scene = loaded(scene)
        scene.points.clear()
        return self.show(scene, view, nm)

    def report_errors(self, handler: Callable, reset: Callable[[Any], dict] = lambda first: {}) -> Callable:
        """Return a handler that shows in the page what went wrong.

        `reset` gets the first input, a dropped file or the scene, and returns what is to be set back.
        """

        @wraps(handler)
        def run(*inputs: Any, **more: Any) -> dict:
            try:
                return handler(*inputs, **more)
            except DataError as error:
                # the folder of an uploaded file is Gradio's own
                words = str(error).replace(f"{inputs[0]}", Path(f"{inputs[0]}").name)
            except MemoryError:
                words = "Not enough memory on the computer that runs app.py; scale the image down."
            except OSError as error:
                words = f"The computer that runs app.py cannot keep the files: {error.strerror or error}."
                words += " Free some space there, then load the image again." * is_full(error)
            return {self.parts.status: say(words, "bad"), **reset(inputs[0])}

        return run


def say(words: str, kind: str = "") -> str:
    """Return the HTML of the status."""
    return f"<div class='note status {kind}' role='status'>{html.escape(words)}</div>"


def loaded(scene: PageScene | None) -> PageScene:
    """Return the visitor's scene. Raises DataError if there is none (any more)."""
    if scene is None:
        raise DataError("Load an image first.")
    return scene


def checked(floor: float | None) -> float:
    """Return the value that dark values are raised to. Raises DataError if it is none."""
    if floor is None or not 1e-6 <= floor < 1:
        raise DataError("Dark values can be raised to a number from 1e-6 up, below 1.")
    return floor


def read_scaled(path: Path, choice: str | None, max_side: int) -> tuple[np.ndarray, str, str, str]:
    """Read an image for the network, scaled down to `max_side`.

    Returns the network's input, how it was read as the .mat states it, a line on the image, and the choice of
    PHOTOGRAPH or LINEAR, which is the one asked for if there is one.
    """
    check_pixels(path)
    image, told, choice = read_decoded(path, choice)
    rgb = image.stored
    height, width = rgb.shape[:2]
    words = f"{path.name}: {height} x {width} pixels"
    if max(height, width) > max_side:
        factor = max_side / max(height, width)
        size = max(round(width * factor), 1), max(round(height * factor), 1)
        rgb = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
        words += f", scaled down to {size[1]} x {size[0]} (--max_side); the .mat is of the scaled image"
    if min(rgb.shape[:2]) < 4:
        raise DataError(f"{words}; at least 4 x 4 are needed")
    return normalise_rgb(rgb), image.how, f"{words}. {told}", choice


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


def connect(gr: Any, parts: Parts, handlers: Handlers) -> None:
    """Connect the components' events with the handlers; Gradio names its API's endpoints after the functions."""
    bar = gr.Progress()

    def load(file: str, nm: float, progress: Any = bar) -> dict:
        return handlers.load(file, nm, progress)

    def example(nm: float, floor: float, progress: Any = bar) -> dict:
        return handlers.example(nm, floor, progress)

    def switch(scene: PageScene | None, choice: str, view: str, nm: float, progress: Any = bar) -> dict:
        return handlers.switch(scene, choice, view, nm, progress)

    def pick(scene: PageScene | None, view: str, nm: float, event: gr.EventData) -> dict:  # pyright: ignore[reportInvalidTypeForm]
        return handlers.pick(scene, view, nm, event.row, event.column)

    safe = handlers.report_errors
    now = [parts.state, parts.view, parts.slider]
    seen = [parts.status, parts.picture, parts.spectra, parts.scores, parts.spectra_file, parts.clear]
    new = [parts.state, parts.encoding, parts.view, parts.cube_file, *seen]

    def empty(zone: Any) -> Callable:
        return lambda _: {zone: None}

    network = {"concurrency_id": "network", "concurrency_limit": 1, "show_progress_on": parts.picture}
    quick = {"show_progress": "hidden", "queue": False}
    parts.image.upload(safe(load, empty(parts.image)), [parts.image, parts.slider], [parts.image, *new], **network)
    parts.encoding.input(
        safe(switch, lambda scene: {parts.encoding: scene.encoding} if scene else {}),
        [parts.state, parts.encoding, parts.view, parts.slider],
        [parts.image, *new],
        **network,
    )
    parts.simulated.click(safe(example), [parts.slider, parts.floor], [parts.image, parts.truth, *new], **network)
    parts.truth.upload(
        safe(handlers.compare, empty(parts.truth)),
        [parts.truth, *now, parts.floor],
        [parts.truth, parts.view, *seen],
        show_progress_on=parts.picture,
    )
    for event in (parts.floor.submit, parts.floor.blur):
        # progress on the picture would swallow the click that takes the focus from the number
        event(
            safe(handlers.rescore),
            [*now, parts.floor],
            seen,
            show_progress_on=parts.scores,
        )
    parts.slider.input(None, [parts.view, parts.slider], parts.view, js="(view, nm) => drcr.slide(view, nm)")
    parts.view.input(None, [parts.view, parts.slider], None, js="(view, nm) => drcr.show(view, nm)")
    parts.picture.click(safe(pick), now, seen, **quick)
    parts.clear.click(safe(handlers.wipe), now, seen, **quick)


def load_networks(model_path: Path | None) -> Networks:
    """Return the networks for photographs and for linear images; with --model_dir both are that one."""
    networks = {}
    for kind in (PHOTOGRAPH, LINEAR):
        path = fitting_network(model_path, kind == PHOTOGRAPH)
        networks[kind] = (path, load_rgb_model(path, choose_device()))
        bands = networks[kind][1].wavelengths
        if bands is None or len(bands) < 2:
            raise DataError(
                f"{path}: the page needs a network of two bands or more that states their wavelengths; choose "
                "another --model_dir"
            )
    return networks


def build(gr: Any, args: argparse.Namespace, folder: Path) -> Any:
    """Return the page, a gr.Blocks; the files to download are written to `folder`."""
    networks = load_networks(args.model_dir)
    wavelengths = np.array(networks[PHOTOGRAPH][1].wavelengths)
    with gr.Blocks(title="Spectra of a photograph", fill_width=True, delete_cache=(3600, 3600)) as page:
        parts = lay_out(gr, wavelengths)
        connect(gr, parts, Handlers(gr, parts, networks, args, folder))
    return page


def import_gradio() -> Any:
    """Return the module gradio, which contacts no other computer. Raises DataError if it is missing or too old."""
    os.environ.update(OFFLINE)
    needed = 'pip install "gradio>={}.{}"'.format(*NEEDED_GRADIO)
    try:
        import gradio as gr
    except ImportError as error:
        raise DataError(f"app.py: needs Gradio ({error}); {needed}") from error
    if tuple(map(int, gr.__version__.split(".")[:2])) < NEEDED_GRADIO:
        raise DataError(f"app.py: Gradio {gr.__version__} is too old; {needed}")
    return gr


def serve(gr: Any, page: Any, args: argparse.Namespace) -> None:
    """Start the server. Raises DataError if it cannot use the port."""
    from starlette.middleware import Middleware  # comes with Gradio

    theme = gr.themes.Default(primary_hue="blue", font=["system-ui", "sans-serif"], font_mono=["monospace"])
    try:
        page.launch(
            server_name=args.host,
            server_port=args.port,
            state_session_capacity=args.sessions,
            share=False,
            ssr_mode=False,
            quiet=True,
            prevent_thread_lock=True,
            footer_links=[],
            css_paths=HERE / "app.css",
            max_file_size=args.max_upload * 1_000_000,
            app_kwargs={"middleware": [Middleware(SameSite, [args.host, *(args.allow_host or ())])]},
            head=f"<script>{(HERE / 'app.js').read_text('utf-8')}drcr.watchUploads({args.max_upload});</script>",
            theme=theme,
        )
    except OSError as error:
        raise DataError(
            f"--port {args.port}: in use, or --host {args.host} is not an address of this computer; choose another"
        ) from error


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
    add("--host", default="127.0.0.1", help="address to serve at; 0.0.0.0: to the whole network")
    add(
        "--allow_host",
        nargs="+",
        metavar="NAME ...",
        help="further names of this computer, if --host is used",
    )
    add("--port", type=port, default=7860, help="port to serve at")
    add(
        "--max_side", type=cli.at_least(4), default=1024, help="scale larger images down to this many pixels per side"
    )
    add("--sessions", type=cli.at_least(1), default=8, help="number of visitors whose cubes are kept in memory")
    add("--max_upload", type=cli.at_least(1), default=150, metavar="MB", help="refuse larger files")
    add(
        "--encoding",
        choices=ENCODINGS,
        default="auto",
        help="the choice beside the picture for a new image. auto and srgb: by the tags of the file, and photograph "
        "where it has none. linear: linear, whatever the tags say",
    )
    args = parser.parse_args(argv)
    with temporary_home() as folder:
        os.environ["GRADIO_TEMP_DIR"] = f"{folder}/uploads"
        gr = import_gradio()
        results = Path(folder, "results")
        results.mkdir()
        gr.set_static_paths(results)  # served in place: a cube is large, and would be copied
        serve(gr, build(gr, args, results), args)
        print(f"http://{args.host}:{args.port} (Ctrl-C ends it)", flush=True)
        threading.Event().wait()
