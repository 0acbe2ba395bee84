"""Jobs over processes: every core one job at a time, the longest first, results kept as they come."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.process import BaseProcess

from splitinfer.errors import InputError, SplitInferError
from splitinfer.experiments.jobs import Job, Store, distinct, run_job

Progress = Callable[[int, int], None]


def run_jobs(jobs: Sequence[Job], store: Store, *, processes: int, progress: Progress | None = None) -> int:
    """Do all jobs that are not done; equal ones are done once.

    Whatever ends this early, an interrupt or a job's error, ends the processes too; finished jobs stay.

    Args:
        jobs: what to do, in any order.
        store: where results go.
        processes: how many at a time; 1 stays in this process.
        progress: called with (jobs done, jobs there are).

    Returns:
        How many jobs were run, the others being done before.

    Raises:
        InputError: a job's world cannot be trained on or simulated.
        SplitInferError: a process ended by itself.
    """
    store.prepare()
    everything = distinct(jobs)
    left = [job for job in everything if store.read(job) is None]
    done = len(everything) - len(left)
    report = progress or (lambda done, total: None)
    report(done, len(everything))
    if processes == 1 or len(left) <= 1:
        for job in left:
            run_job(job, store)
            done += 1
            report(done, len(everything))
        return len(left)
    before = set(multiprocessing.active_children())
    executor = ProcessPoolExecutor(
        min(processes, len(left)), mp_context=multiprocessing.get_context("spawn"), initializer=_begin
    )
    try:
        futures: list[Future[str | None]] = [executor.submit(_attempt, job, store) for job in left]
        for future in as_completed(futures):
            problem = future.result()
            if problem is not None:
                raise InputError(problem)
            done += 1
            report(done, len(everything))
    except BrokenProcessPool:
        raise SplitInferError(
            "a process of the sweep was ended from outside (is memory short? try --jobs 1); "
            "what was done is kept: run the command again to go on"
        ) from None
    except BaseException:
        workers = set(multiprocessing.active_children()) - before
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.join()
            store.clear(worker.pid or 0)
        raise
    finally:
        executor.shutdown(cancel_futures=True)
    return len(left)


def _attempt(job: Job, store: Store) -> str | None:
    """Do a job in a worker; errors on purpose come back as their message, as not all of them can be pickled."""
    try:
        run_job(job, store)
    except SplitInferError as error:
        return str(error)
    return None


def _begin() -> None:
    """Prepare a worker: an interrupt from the keyboard is the parent's business, and it ends with its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)
