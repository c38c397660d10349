"""Look at reconstructions in a browser: drop an image in, slide through its bands, click for spectra.

Starts a page at http://HOST:PORT (pip install "gradio>=6.20" before). It reconstructs the image as test.py does
and shows it in true colour, band by band, and as it came; it plots the spectra of the pixels that are clicked, and
with a true cube (.mat) the errors, scored as compute_mrae.py does. The cube can be downloaded as a .mat, which is
test.py's, the spectra as a CSV; pixels are named row,column, from 0. The page is for this computer alone unless
--host says otherwise, and asks nothing of any other: no fonts, no statistics, no look for updates.

The cubes of the last --sessions visitors are in memory, 260 MB each with its truth at 1024 x 1024 pixels, and in a
temporary folder that ends with the program; files that were uploaded are removed after an hour or two.
"""

import argparse
import csv
import html
import io
import json
import os
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

import cv2
import matplotlib
import numpy as np
from matplotlib.figure import Figure

from drcr import metrics
from drcr.checkpoint import load_rgb_model
from drcr.compute.device import choose_device
from drcr.evaluation.colour import true_colour, white_level
from drcr.evaluation.figures import STYLE
from drcr.evaluation.scoring import read_truth
from drcr.images import normalise_rgb, read_rgb
from drcr.matfile import describe_bands, same_bands, write_cube
from drcr.metrics import HEADINGS, SCORES
from drcr.reconstruct import Reconstructor, origin_of, reconstruct_image
from drcr.utils import cli
from drcr.utils.files import DataError, write_atomically

COLOUR, BAND, RGB, ERROR = "True colour", "Band", "RGB input", "Error"
# of the points: Okabe & Ito's, as in the figures, without the yellow, which does not show on white
COLOURS = ["#D55E00", "#0072B2", "#009E73", "#E69F00", "#56B4E9", "#CC79A7"]
SIZE = 4.2, 2.7  # of the plot, in inches
# where Gradio would go: statistics and updates, a hub, and by a proxy even to this page
OFFLINE = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1", "NO_PROXY": "*", "no_proxy": "*"}
SPECTRA = "Click into the picture: the spectra of those pixels are plotted here."
CLICK = """element.addEventListener('click', event => {
    const picture = element.querySelector('svg[data-views]');
    if (!picture || !picture.contains(event.target)) return;
    const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(picture.getScreenCTM().inverse());
    trigger('click', {row: Math.floor(point.y), column: Math.floor(point.x)});
});"""
# all bands lie ready as files, so that sliding needs no answer from here
SHOW = """(view, nm) => {
    const picture = document.querySelector('svg[data-views]');
    if (!picture) return view;
    const wavelengths = JSON.parse(picture.dataset.wavelengths), pictures = JSON.parse(picture.dataset.views)[view];
    const off = wavelengths.map(other => Math.abs(other - nm)), band = off.indexOf(Math.min(...off));
    const [source, caption] = pictures[Math.min(band, pictures.length - 1)];
    document.querySelector('.caption').innerHTML = caption;
    picture.dataset.wanted = source;
    const next = new Image();  // no flicker: the picture changes when the next one is there
    next.onload = () => {
        if (picture.dataset.wanted === source) picture.querySelector('image').setAttribute('href', source);
    };
    next.src = source;
    const line = document.querySelector('line[data-places]');
    if (line) for (const end of ['x1', 'x2']) line.setAttribute(end, JSON.parse(line.dataset.places)[band]);
    return view;
}"""
SLIDE = f"(view, nm) => ({SHOW})(view === '{ERROR}' ? view : '{BAND}', nm)"


class Scene:
    """An image, its reconstruction, the points that were clicked, and its truth where there is one."""

    def __init__(self, name: str, rgb: np.ndarray, cube: np.ndarray, wavelengths: np.ndarray, folder: Path) -> None:
        """`rgb` (H, W, 3) in [0, 1], `cube` (H, W, bands) at `wavelengths` (nm). Its files go below `folder`."""
        self.name, self.cube, self.wavelengths = name, cube, wavelengths
        self._home = tempfile.TemporaryDirectory(dir=folder)  # goes when nobody keeps the scene any more
        self.folder = Path(self._home.name)
        self.points: list[tuple[int, int]] = []
        self.truth: np.ndarray | None = None
        self.truth_path: Path | None = None
        self.floor = 0.0
        white = white_level(cube, wavelengths, "E")
        colour = self.png("colour", true_colour(cube, wavelengths, "E", white))
        self.views = {  # the pictures of each view with a line on each
            COLOUR: [(colour, "The reconstruction as an eye sees it in even light")],
            RGB: [(self.png("rgb", rgb), "The image as the network gets it")],
            BAND: [],
        }
        for band, nm in enumerate(wavelengths):
            # as in the figures: a single highlight would leave the rest dark
            grey = max(np.percentile(cube[..., band], 99.5), 1e-6)
            line = f"<b>{nm:g} nm</b> band {band + 1} of {len(wavelengths)}, white: radiance {grey:.2g}"
            self.views[BAND].append((self.png(f"band{band}", cube[..., band] / grey), line))

    def png(self, name: str, image: np.ndarray) -> str:
        """Write an image (H, W) or (H, W, 3) in [0, 1], else clipped, as a file; return its address in the page."""
        image = np.uint8(image.clip(0, 1) * 255 + 0.5)
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image
        cv2.imwrite(str(self.folder / f"{name}.png"), image, [cv2.IMWRITE_PNG_COMPRESSION, 1])
        return f"gradio_api/file={self.folder}/{name}.png"

    def compare(self, path: Path, floor: float) -> None:
        """Read the truth from a .mat file, its dark values raised to `floor`, and score.

        Raises DataError if it is no cube, or not this image's.
        """
        cube, raised = read_truth(path, floor)
        truth, bands = cube.values, len(self.wavelengths)
        if truth.shape != self.cube.shape:
            theirs, ours = ("{} x {} pixels, {} bands".format(*shape) for shape in (truth.shape, self.cube.shape))
            raise DataError(f"{path}: {theirs}, but the reconstruction is {ours}")
        if not same_bands(cube.require_wavelengths(), self.wavelengths):
            raise DataError(f"{path}: other wavelengths than the reconstruction's {describe_bands(self.wavelengths)}")
        rec = self.cube.clip(0, 1)
        self.truth, self.truth_path, self.floor = truth, path, floor
        self.raised = f"{raised / truth.size:.1%} of its values raised to {floor:g}"
        self.scores = [getattr(metrics, name)(rec, truth) for name in SCORES]
        total = np.zeros(truth.shape[:2])
        self.views[ERROR] = []
        for band, nm in enumerate(self.wavelengths):
            error = np.abs(rec[..., band] - truth[..., band]) / truth[..., band]
            total += error
            line = f"<b>{nm:g} nm</b> relative error {scale()}"
            self.views[ERROR].append((self.png(f"error{floor:g}-{band}", heat(error)), line))
        self.mean_error = self.png(f"error{floor:g}", heat(total / bands))

    def picture(self, view: str, band: int) -> str:
        """Return the HTML of a view, its points and a line on it, and what the others need."""
        pictures = self.views[view]
        address, line = pictures[min(band, len(pictures) - 1)]
        data = f"data-wavelengths='{self.wavelengths.tolist()}' data-views='{html.escape(json.dumps(self.views))}'"
        return f"{self.drawing(address, data)}<div class='caption'>{line}</div>"

    def drawing(self, address: str, data: str = "") -> str:
        """Return a picture with the points on it as an SVG."""
        height, width = self.cube.shape[:2]
        size = max(height, width) / 40
        marks = ""
        for number, (row, column) in enumerate(self.points):
            y, x = row + 0.5, column + 0.5
            # beside its pixel, on the side where there is room
            aside = x + 1.6 * size * (1 if x < width - 3 * size else -1)
            marks += (
                f"<g stroke='white' stroke-width='{size / 8}'><title>row {row}, column {column}</title>"
                f"<circle cx='{x}' cy='{y}' r='{size / 2.5}' fill='none' stroke='black' stroke-width='{size / 4}'/>"
                f"<circle cx='{x}' cy='{y}' r='{size / 2.5}' fill='none'/>"
                f"<circle cx='{aside}' cy='{y}' r='{size}' fill='{COLOURS[number]}'/>"
                f"<text x='{aside}' y='{y + size / 2}' font-size='{1.4 * size}' "
                f"fill='{'white' if number < 3 else 'black'}'>{number + 1}</text></g>"
            )
        return (
            f"<svg viewBox='0 0 {width} {height}' {data}>"
            f"<image width='{width}' height='{height}' href='{address}'/>{marks}</svg>"
        )

    def spectra(self, band: int) -> str:
        """Return a plot of the points' spectra as an SVG, the truth dashed, a line at a band."""
        if not self.points:
            return hint(SPECTRA)
        figure = Figure(figsize=SIZE, dpi=72, layout="constrained")
        axes = figure.subplots()
        ends = []
        for number, point in enumerate(self.points):
            axes.plot(self.wavelengths, self.cube[point], color=COLOURS[number], lw=1.5)
            ends.append(self.cube[point][-1])
            if self.truth is not None:
                axes.plot(self.wavelengths, self.truth[point], "--", color=COLOURS[number], lw=1.1)
        axes.set(xlabel="wavelength (nm)", ylabel="radiance", xlim=self.wavelengths[[0, -1]])
        bottom = min([0, *(self.cube[point].min() for point in self.points)])
        axes.set_ylim(bottom)
        height = axes.get_ylim()[1] - bottom
        place = -1.0
        for number in np.argsort(ends):  # one above the other, where lines end close together
            place = max((ends[number] - bottom) / height, place + 0.06)
            axes.text(
                1.01,
                place,
                str(number + 1),
                transform=axes.transAxes,
                va="center",
                weight="bold",
                color=COLOURS[number],
            )
        if self.truth is not None:
            for style, label in (("-", "reconstruction"), ("--", "truth")):
                axes.plot([], [], style, color="0.3", lw=1.3, label=label)
            figure.legend(loc="outside upper center", ncols=2)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg")
        svg = buffer.getvalue()
        (left, bottom), (right, top) = axes.transAxes.transform([(0, 0), (1, 1)])
        parts = (self.wavelengths - self.wavelengths[0]) / (self.wavelengths[-1] - self.wavelengths[0])
        places = (left + parts * (right - left)).round(1).tolist()
        line = (
            f"<line x1='{places[band]}' x2='{places[band]}' y1='{72 * SIZE[1] - top}' y2='{72 * SIZE[1] - bottom}' "
            f"stroke='#999' stroke-width='.7' data-places='{places}'/>"
        )
        return svg[svg.index("<svg") :].replace("</svg>", f"{line}</svg>")

    def table(self) -> str:
        """Return the HTML of the scores beside the map of errors."""
        if self.truth is None:
            return ""
        rows = "".join(
            f"<tr><td>{heading}</td><td>{score:.{digits}f}</td></tr>"
            for (heading, digits), score in zip(HEADINGS.values(), self.scores, strict=True)
        )
        return (
            f"<div class='scores'>{self.drawing(self.mean_error)}<table>{rows}</table><div class='note'>"
            f"Relative error, mean over the bands: {scale()}<br>Truth: {html.escape(self.truth_path.name)}, "
            f"{self.raised}</div></div>"
        )

    def write_spectra(self) -> Path | None:
        """Write the points' spectra, a column a point, as CSV; return its path, None where there is no point."""
        if not self.points:
            return None
        cubes = {"": self.cube} | ({} if self.truth is None else {"truth ": self.truth})
        columns = {f"{what}{r},{c}": cube[r, c] for what, cube in cubes.items() for r, c in self.points}
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["wavelength_nm", *columns])
        writer.writerows(zip(self.wavelengths, *columns.values(), strict=True))
        path = self.folder / f"{self.name}_spectra.csv"
        write_atomically(path, lambda file: file.write(text.getvalue().encode()))
        return path


def heat(error: np.ndarray) -> np.ndarray:
    """Return relative errors (H, W), from 0 to 1 and more, as colours (H, W, 3) in [0, 1]."""
    return cv2.applyColorMap(np.uint8(error.clip(0, 1) * 255 + 0.5), cv2.COLORMAP_MAGMA)[..., ::-1] / np.float32(255)


def scale() -> str:
    """Return the HTML of the scale of `heat`."""
    stops = ", ".join("rgb({:.0%} {:.0%} {:.0%})".format(*colour) for colour in heat(np.linspace(0, 1, 9)[None])[0])
    return f"<span class='scale'>0<span style='background: linear-gradient(90deg, {stops})'></span>1 or more</span>"


def hint(text: str) -> str:
    """Return the HTML of what stands where there is nothing to see yet."""
    return f"<div class='hint'>{text}</div>"


def simulate(folder: Path, side: int) -> tuple[Path, Path]:
    """Write a simulated scene of `side` x `side` pixels; return its image and its true cube."""
    from drcr.camera import PRESETS, Camera
    from drcr.matfile import WAVELENGTHS
    from drcr.preparation.render import render_rgb
    from drcr.preparation.simulation import SceneModel

    rng = np.random.default_rng()
    cube = SceneModel(size=(side, side), radii=(8, 96), illuminants=("E",)).render(rng)
    image, truth = folder / "simulated.jpg", folder / "simulated_truth.mat"
    image.write_bytes(render_rgb(cube, WAVELENGTHS, Camera(), PRESETS["real-world"], rng, "simulated"))
    write_cube(truth, cube, WAVELENGTHS)
    return image, truth


def build(gr: Any, args: argparse.Namespace, folder: Path) -> Any:
    """Return the page, a gr.Blocks; `folder` is for the files to download."""
    model = load_rgb_model(args.model_dir, choose_device())
    if model.wavelengths is None or len(model.wavelengths) < 2:
        raise DataError(f"{args.model_dir}: a network of two bands or more, whose wavelengths it tells, is needed")
    reconstructor, wavelengths = Reconstructor(model), np.array(model.wavelengths)
    bar = gr.Progress()

    def nearest(nm: float) -> int:
        return int(np.abs(wavelengths - nm).argmin())

    def say(words: str, kind: str = "") -> str:
        return f"<div class='note status {kind}' role='status'>{html.escape(words)}</div>"

    def told(handler: Callable, zone: Any = None) -> Callable:
        """Return a handler that says what is wrong with its first input, the file dropped on `zone`, in the page."""

        @wraps(handler)
        def run(*inputs: Any, **more: Any) -> dict:
            try:
                return handler(*inputs, **more)
            except DataError as error:
                # the file by its name: the folder is Gradio's own
                words = say(str(error).replace(f"{inputs[0]}", Path(f"{inputs[0]}").name), "bad")
                return {status: words} | ({} if zone is None else {zone: None})

        return run

    def there(scene: Scene | None) -> Scene:
        """Return the visitor's scene. Raises DataError if there is none, or no longer."""
        if scene is None:
            raise DataError("Load an image first.")
        return scene

    def show(scene: Scene, view_now: str, nm: float) -> dict:
        band = nearest(nm)
        return {
            status: say(scene.words),
            picture: scene.picture(view_now, band),
            spectra: scene.spectra(band),
            scores: scene.table(),
            spectra_file: gr.DownloadButton(value=scene.write_spectra(), interactive=bool(scene.points)),
            clear: gr.Button(interactive=bool(scene.points)),
        }

    def load(file: str, nm: float, progress: Any = bar) -> dict:
        path = Path(file)
        start = time.perf_counter()
        rgb = read_rgb(path)
        height, width = rgb.shape[:2]
        words = f"{path.name}: {height} x {width} pixels"
        if max(height, width) > args.max_side:
            factor = args.max_side / max(height, width)
            size = max(round(width * factor), 1), max(round(height * factor), 1)
            rgb = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
            words += f", scaled down to {size[1]} x {size[0]} (--max_side); the .mat is of the scaled image"
        if min(rgb.shape[:2]) < 4:
            raise DataError(f"{words}; at least 4 x 4 are needed")
        done = 0.0

        def advance(pixels: float) -> None:
            nonlocal done
            done += pixels
            progress(done / rgb[..., 0].size, desc="The network is at work")

        rgb = normalise_rgb(rgb)
        cube = reconstruct_image(reconstructor, rgb, path, args.model_dir, advance=advance)
        scene = Scene(path.stem, rgb, cube, wavelengths, folder)
        cube_path = scene.folder / f"{path.stem}.mat"
        write_cube(cube_path, cube, wavelengths, origin_of(args.model_dir))
        scene.words = f"{words}. Reconstructed in {time.perf_counter() - start:.1f} s."
        return {
            **show(scene, COLOUR, nm),
            state: scene,
            image: None,
            view: gr.Radio(choices=[COLOUR, BAND, RGB], value=COLOUR),
            cube_file: gr.DownloadButton(value=cube_path, interactive=True),
        }

    def compare(file: str, scene: Scene | None, view_now: str, nm: float, floor: float) -> dict:
        if floor is None or not 1e-6 <= floor < 1:
            raise DataError("Dark values are raised to a number from 1e-6 up, below 1.")
        there(scene).compare(Path(file), floor)
        return {**show(scene, view_now, nm), truth: None, view: gr.Radio(choices=[COLOUR, BAND, RGB, ERROR])}

    def example(nm: float, floor: float, progress: Any = bar) -> dict:
        with tempfile.TemporaryDirectory(dir=folder) as simulated:
            image_path, truth_path = simulate(Path(simulated), min(256, args.max_side))
            shown = load(str(image_path), nm, progress)
            truth_path = truth_path.rename(shown[state].folder / truth_path.name)
        return shown | compare(str(truth_path), shown[state], COLOUR, nm, floor)

    def rescore(scene: Scene | None, view_now: str, nm: float, floor: float) -> dict:
        if scene is None or scene.truth_path is None or scene.floor == floor:
            return {status: gr.skip()}
        return compare(str(scene.truth_path), scene, view_now, nm, floor)

    def pick(scene: Scene | None, view_now: str, nm: float, event: gr.EventData) -> dict:
        height, width = there(scene).cube.shape[:2]
        point = min(max(event.row, 0), height - 1), min(max(event.column, 0), width - 1)
        if len(scene.points) == len(COLOURS):
            raise DataError(f"{len(COLOURS)} points are the most; clear them for others.")
        if point not in scene.points:
            scene.points.append(point)
        return show(scene, view_now, nm)

    def wipe(scene: Scene | None, view_now: str, nm: float) -> dict:
        there(scene).points.clear()
        return show(scene, view_now, nm)

    with gr.Blocks(title="Spectra of a photograph", fill_width=True, delete_cache=(3600, 3600)) as page:
        state = gr.State()
        gr.HTML(
            f"<h1>Spectra of a photograph</h1>DRCR Net estimates (not measures) "
            f"{describe_bands(wavelengths)}, from an RGB image."
        )
        status = gr.HTML(say("Images stay on the machine that runs app.py."))
        with gr.Row(equal_height=False):
            with gr.Column(scale=2, min_width=190):
                image = gr.File(label="RGB image", height=100, elem_id="image", elem_classes="zone")
                simulated = gr.Button("Take a simulated scene", size="sm")
                cube_file = gr.DownloadButton("Download the cube (.mat)", size="sm", interactive=False)
                truth = gr.File(label="True cube (.mat)", height=100, elem_id="truth", elem_classes="zone")
                floor = gr.Number(0.01, step=0.01, label="Raise its dark values to")
            with gr.Column(scale=5, min_width=320):
                view = gr.Radio(
                    [COLOUR, BAND, RGB], value=COLOUR, show_label=False, container=False, elem_classes="views"
                )
                picture = gr.HTML(
                    hint("Drop a photograph at the left, or take a simulated scene."),
                    js_on_load=CLICK,
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
                spectra = gr.HTML(hint(SPECTRA), elem_classes="spectra")
                with gr.Row():
                    clear = gr.Button("Clear the points", size="sm", min_width=100, interactive=False)
                    spectra_file = gr.DownloadButton(
                        "Download spectra (.csv)", size="sm", min_width=100, interactive=False
                    )
                scores = gr.HTML()

        now = [state, view, slider]
        seen = [status, picture, spectra, scores, spectra_file, clear]
        network = {"concurrency_id": "network", "concurrency_limit": 1, "show_progress_on": picture}
        quick = {"show_progress": "hidden", "queue": False}
        image.upload(told(load, image), [image, slider], [state, image, view, cube_file, *seen], **network)
        simulated.click(told(example), [slider, floor], [state, image, truth, view, cube_file, *seen], **network)
        truth.upload(told(compare, truth), [truth, *now, floor], [truth, view, *seen], show_progress_on=picture)
        for event in (floor.submit, floor.blur):
            # not on the picture: it would swallow the click that takes the focus from the number
            event(told(rescore), [*now, floor], [truth, view, *seen], show_progress_on=scores)
        slider.input(None, [view, slider], view, js=SLIDE)
        view.input(None, [view, slider], None, js=SHOW)
        picture.click(told(pick), now, seen, **quick)
        clear.click(told(wipe), now, seen, **quick)
    return page


def main(argv: Sequence[str] | None = None) -> None:
    """Read the options and serve the page."""
    parser = cli.parser(__doc__)
    parser.add_argument(
        "--model_dir", type=Path, default="./model/model.pth", help="checkpoint, ours or the authors'"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to serve at; 0.0.0.0: to the whole network")
    parser.add_argument("--port", type=cli.at_least(1), default=7860, help="port to serve at")
    parser.add_argument(
        "--max_side",
        type=cli.at_least(4),
        default=1024,
        help="images longer or wider than so many pixels are scaled down",
    )
    parser.add_argument("--sessions", type=cli.at_least(1), default=8, help="visitors whose cubes are kept in memory")
    args = parser.parse_args(argv)
    os.environ.update(OFFLINE)
    matplotlib.rcParams.update(STYLE)
    with tempfile.TemporaryDirectory(prefix="drcr-app-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = f"{folder}/uploads"
        try:
            import gradio as gr
        except ImportError as error:
            raise DataError(f'app.py: needs Gradio ({error}); pip install "gradio>=6.20"') from error
        if tuple(map(int, gr.__version__.split(".")[:2])) < (6, 20):  # earlier ones load a script from elsewhere
            raise DataError(f'app.py: needs a later Gradio than {gr.__version__}; pip install "gradio>=6.20"')
        results = Path(folder, "results")
        results.mkdir()
        gr.set_static_paths(results)  # served as they are: a cube is large, and would be copied
        page = build(gr, args, results)
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
                css_paths=Path(__file__).with_name("app.css"),
                theme=theme,
            )
        except OSError as error:
            raise DataError(
                f"--port {args.port}: is taken, or --host {args.host} is no address of this machine; choose another"
            ) from error
        print(f"http://{args.host}:{args.port} (Ctrl-C ends it)", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    cli.run(main)
