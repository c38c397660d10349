"""Work shared out to processes."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

import cv2

from drcr.utils.files import DataError

Job = TypeVar("Job")
Result = TypeVar("Result")


def available_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def prepare_process() -> None:
    """Set up a process of a pool: Ctrl-C is the parent's to answer, and one thread is enough."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    cv2.setNumThreads(1)
    # the pool's processes would wait for work for ever after their parent was killed
    threading.Thread(target=_follow_parent, daemon=True).start()


def _follow_parent() -> None:
    """Wait for the parent's end, then end this process."""
    multiprocessing.parent_process().join()
    os.kill(os.getpid(), signal.SIGTERM)


def _finish(function: Callable[[Job], Result], job: Job) -> Result:
    """Return function(job); a SIGTERM meanwhile ends this process after it, so that nothing half-written is left."""
    stopped = False

    def stop(*_: object) -> None:
        nonlocal stopped
        stopped = True

    signal.signal(signal.SIGTERM, stop)
    try:
        return function(job)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if stopped:
            os._exit(128 + signal.SIGTERM)


def in_order(function: Callable[[Job], Result], jobs: Iterable[Job], n_workers: int) -> Iterator[Result]:
    """Yield function(job) of each job, in their order, computed in `n_workers` processes (0: in this one).

    No more than two results a process wait or are in the making. The first error ends it all and goes on; a process
    that is killed raises DataError. What a process has begun it finishes, unless it is killed.
    """
    if n_workers == 0:
        yield from map(function, jobs)
        return
    # not forked: what this process may have started, OpenCV's threads among it, does not survive that
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(n_workers, mp_context=context, initializer=prepare_process) as pool:
        pending: deque[Future] = deque()
        try:
            for job in jobs:
                if len(pending) == 2 * n_workers:
                    yield pending.popleft().result()
                pending.append(pool.submit(_finish, function, job))
            while pending:
                yield pending.popleft().result()
        except BrokenProcessPool as error:
            raise DataError("a process was killed, perhaps for want of memory; try --num_workers 1") from error
        finally:
            for future in pending:
                future.cancel()
