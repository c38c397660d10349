"""Work in parallel processes."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from drcr.utils.files import DataError

Job = TypeVar("Job")
Result = TypeVar("Result")

START_SECONDS = 3.0
"""What processes must save: 1.8 s of a core (AMD EPYC) to import PyTorch, and a margin for cores in other use."""


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processes_for(n_jobs: int, seconds: float, n_workers: int) -> int:
    """Return in how many processes to do jobs of `seconds` of a core each; 0 if that saves too little."""
    n_workers = min(n_workers, n_jobs)
    return n_workers if n_workers > 1 and n_jobs * seconds * (1 - 1 / n_workers) > START_SECONDS else 0


def prepare_process() -> None:
    """Set up a process of a pool: it ignores Ctrl-C, which the parent handles, and uses one thread."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    import cv2

    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    cv2.setNumThreads(1)
    # otherwise the processes would wait for work for ever after their parent was killed
    threading.Thread(target=_follow_parent, daemon=True).start()


def _follow_parent() -> None:
    """End this process when its parent ends."""
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
    os.kill(os.getpid(), signal.SIGTERM)


def _finish(function: Callable[[Job], Result], job: Job) -> Result:
    """Return function(job). A SIGTERM in the meantime ends this process only afterwards: no half-written file."""
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
    """Yield function(job) for each job, in order, computed in `n_workers` processes (0: in this one).

    At most two jobs per process are in progress or waiting to be taken. The first error stops everything and is
    raised; a killed process raises DataError. The other processes finish the job that they have begun.
    """
    if n_workers == 0:
        yield from map(function, jobs)
        return
    # not forked: threads that this process has started, such as OpenCV's, do not survive a fork
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
            raise DataError("a process was killed, perhaps because memory ran out; try --num_workers 1") from error
        finally:
            for future in pending:
                future.cancel()
