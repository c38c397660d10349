"""Sections of an image, each computed by a thread of its own.

PyTorch's threads share each operation and wait for each other at its end, thousands of times per image. If another
program has one of the cores, all wait for it every time. Threads with a section each meet once per sweep.
"""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import NamedTuple

import torch
from torch import Tensor

ALIGNED = 4
"""Sections begin at multiples of this, because NPM averages 4 x 4 pixels."""


class Section(NamedTuple):
    """Rows of an image: from `top` to before `bottom`."""

    top: int
    bottom: int


Piece = tuple[int, Tensor]
"""Rows (n, W, C) of a feature map, and the number of the first."""


def divide(height: int, count: int) -> list[Section]:
    """Return `count` sections of about the same height."""
    tops = [round(i * height / count / ALIGNED) * ALIGNED for i in range(count)]
    return [Section(top, bottom) for top, bottom in zip(tops, [*tops[1:], height], strict=True)]


def with_margin(values: Tensor, section: Section, margin: int) -> list[Piece]:
    """Return the section's rows of a feature map (H, W, C), and copies of up to `margin` rows above and below.

    Copies, because other threads may overwrite those rows.
    """
    top, bottom = section
    above, below = values[max(top - margin, 0) : top], values[bottom : bottom + margin]
    return [(top - len(above), above.clone()), (top, values[top:bottom]), (bottom, below.clone())]


def run_sections(sections: list[Iterator[int]], advance: Callable[[int], None]) -> None:
    """Run each iterator to its end in a thread of its own, a single one in this thread.

    `advance` is called in this thread with what they yield. The first error stops all of them and is raised.
    """
    if len(sections) == 1:
        for rows in sections[0]:
            advance(rows)
        return
    n_threads = torch.get_num_threads()
    done: SimpleQueue[int | None] = SimpleQueue()
    stop = threading.Event()

    def run(section: Iterator[int]) -> None:
        torch.set_num_threads(max(1, n_threads // len(sections)))  # of this thread
        try:
            with torch.inference_mode():
                for rows in section:
                    if stop.is_set():
                        return
                    done.put(rows)
        except BaseException:
            stop.set()
            raise
        finally:
            done.put(None)

    try:
        with ThreadPoolExecutor(len(sections)) as pool:
            try:
                futures = [pool.submit(run, section) for section in sections]
                running = len(sections)
                while running:
                    if (rows := done.get()) is None:
                        running -= 1
                    else:
                        advance(rows)
            finally:
                stop.set()  # Ctrl-C: the threads end with their strips
            for future in futures:
                future.result()
    finally:
        torch.set_num_threads(n_threads)  # of threads that are started later
