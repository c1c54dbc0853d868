"""A whole project file as one job on Dask: batches go to workers, what became of them into the record.

Dask brings the workers, the queue between them and the retries; nothing of that is ours (https://distributed.dask.org).
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import logging
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rumpbundle import __version__
from rumpbundle.bootloader.bootimages import boot_images
from rumpbundle.dataclass import dataclass
from rumpbundle.errors import HostError, MissingToolError, RumpbundleError, ToolError
from rumpbundle.host import environment
from rumpbundle.project import batches
from rumpbundle.project.apart import check_outputs_apart
from rumpbundle.project.batches import Batch, Done, Failure, Item
from rumpbundle.project.entry import ProjectEntry, entries
from rumpbundle.project.reading import Project
from rumpbundle.project.record import BuildRecord, RecordedOutput

BATCH = 128
"""Bundles a worker is given at most at once: a batch costs client and scheduler some 6 ms, the disk a wait."""
_FIRST = 16
"""Bundles of the batches that are handed out before it is known how long one takes."""
_LEAST = 4
"""Bundles of the last batches, which shrink so that all workers end at about the same time."""
_SPAN = 0.5
"""Seconds a batch is to take, if bundles are large: so much is lost with a worker, and nothing is told meanwhile."""
_AHEAD = 3
"""Batches a worker has at most waiting: enough that none is idle, few enough that memory stays flat."""
_LOCAL = {
    "distributed.worker.profile.enabled": False,
    "distributed.admin.system-monitor.interval": "10s",
    "distributed.admin.tick.interval": "1s",
    "distributed.worker.memory.monitor-interval": "1s",
    "distributed.scheduler.active-memory-manager.start": False,
    "distributed.scheduler.work-stealing": False,
    # Without this, Dask has malloc give back each page at once, which a bundle pays with half of its time.
    "distributed.nanny.pre-spawn-environ": {},
    # A worker that is missing so long after it died is given up, also if it was there meanwhile and died again.
    "distributed.deploy.lost-worker-timeout": "1000 hours",
}
"""What Dask does all the time for those who look at it is left out: nobody looks at local workers."""
_PATIENCE = 5.0
"""Seconds without any worker after which that is told."""
_STRIKES = 4
"""Workers that may die over one batch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a fleet is."""

    total: int
    done: int
    """Bundles that stand, new or as they were."""
    made: int
    """Outputs that are new."""
    failed: int
    seconds: float
    """Since the beginning."""

    @property
    def rate(self) -> float:
        """Bundles a second."""
        return (self.done + self.failed) / self.seconds if self.seconds > 0 else 0.0

    @property
    def left(self) -> float | None:
        """Seconds that are left at this rate."""
        return (self.total - self.done - self.failed) / self.rate if self.rate else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A bundle there is none of."""

    entry: ProjectEntry
    failure: Failure


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What became of a fleet."""

    progress: Progress
    outputs: tuple[tuple[ProjectEntry, tuple[RecordedOutput, ...]], ...]
    """What stands, in the order of the project file and its rows."""
    failed: tuple[Failed, ...]


def run(
    project: Project,
    record: BuildRecord,
    *,
    directory: Path | None = None,
    scheduler: str | None = None,
    workers: int | None = None,
    sync: bool = True,
    report: Callable[[Progress], None] = lambda progress: None,
    complain: Callable[[Failed], None] = lambda failed: None,
    alone: Callable[[], None] = lambda: None,
) -> Summary:
    """Make all that *project* describes and is not up to date, on the workers of *scheduler* or on *workers* here.

    *alone* is called whenever the scheduler has no workers left, for which it waits.

    Raises:
        InputError: the project file or a table is wrong; then nothing was made.
        MissingToolError: Dask is not installed.
        HostError: there is no such scheduler, or it is gone.
    """
    for name, image in project.images.items():
        for key in ("sbom", "sign"):
            if key in image:
                problem = "a fleet writes no SBOMs and signs nothing"
                raise project.error(problem, ("image", name, key), "leave it out, or use rumpbundle build for it")
    found = list(entries(project))
    check_outputs_apart(found, directory=directory)
    with _client(scheduler, workers) as client, _watched(client, alone):
        from distributed.client import FutureCancelledError
        from distributed.comm.core import CommClosedError

        try:
            return _Run(client, project, record, found, directory, sync, report, complain).follow()
        except (FutureCancelledError, CommClosedError):
            raise HostError("the scheduler is gone", hint="start the same command again: what stands stays") from None


@contextlib.contextmanager
def _client(scheduler: str | None, workers: int | None) -> Iterator[Any]:
    """Give a client of Dask."""
    try:
        import dask.config
        import distributed
    except ImportError:
        raise MissingToolError("Dask is not installed", hint="pip install 'rumpbundle[fleet]'") from None
    # What Dask says of a worker that died is ours to say: what became of its batch.
    for name in ("distributed", "distributed.client"):  # which has a level of its own
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with contextlib.ExitStack() as stack:
        try:
            if scheduler is None:
                count = workers or os.cpu_count() or 1
                stack.enter_context(dask.config.set(_LOCAL))
                local = distributed.LocalCluster(
                    n_workers=count,
                    threads_per_worker=1,
                    processes=True,
                    host="127.0.0.1",
                    dashboard_address="127.0.0.1:0",
                    worker_dashboard_address="127.0.0.1:0",
                    silence_logs=logging.CRITICAL,
                    preload=[batches.__name__],
                )
                scheduler = stack.enter_context(local)
            client = stack.enter_context(distributed.Client(scheduler))
        except (OSError, ValueError) as error:
            if not isinstance(scheduler, str):
                raise
            raise HostError(f"no scheduler answers there: {error}", where=scheduler) from None
        yield client


@contextlib.contextmanager
def _watched(client: Any, alone: Callable[[], None]) -> Iterator[None]:
    """Call *alone* if the scheduler of *client* has had no worker for a while: nothing else would tell."""
    over = threading.Event()

    def watch() -> None:
        told = False
        while not over.wait(_PATIENCE):
            try:
                lonely = not client.nthreads()
            except (OSError, RuntimeError):  # it is gone, which is told elsewhere
                return
            if lonely and not told:
                alone()
            told = lonely

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(1)  # what a dead scheduler is asked may take long to fail


def batch_size(left: int, threads: int, rate: float | None) -> int:
    """Return how many of the *left* bundles to hand out at once, if *threads* make *rate* a second in all."""
    wanted = _FIRST if rate is None else int(_SPAN * rate / threads)
    return min(left, max(_LEAST, min(BATCH, wanted, left // (4 * threads))))


class _Run:
    """A fleet on its way."""

    def __init__(
        self,
        client: Any,
        project: Project,
        record: BuildRecord,
        found: list[ProjectEntry],
        directory: Path | None,
        sync: bool,
        report: Callable[[Progress], None],
        complain: Callable[[Failed], None],
    ) -> None:
        self._client = client
        self._record = record
        self._resumed = bool(record.outputs)
        self._directory = directory
        self._found = found
        self._report = report
        self._complain = complain
        self._began = environment.monotonic()
        self._outputs: dict[int, tuple[RecordedOutput, ...]] = {}
        self._failed: dict[int, Failed] = {}
        self._suspects: list[int] = []
        self._made = 0
        self._project = project
        self._tails: dict[str, list[str]] = {}
        self._places: dict[Path | str, str] = {}
        try:
            images = boot_images().facts
        except MissingToolError:
            images = None
        self._batch = Batch(
            project=dataclasses.replace(project, path=os.path.abspath(project.path)),
            items=(),
            directory=None if directory is None else os.path.abspath(directory),
            now=record.now,
            epoch=environment.epoch(),
            version=__version__,
            images=None if images is None else dict(images),
            sync=sync,
        )

    def follow(self) -> Summary:
        """Hand out batches and take what comes back until all is done."""
        from distributed import as_completed

        batches_left = self._batches()
        threads = sum(self._client.nthreads().values()) or 1
        futures = as_completed(self._submit(*each) for each in itertools.islice(batches_left, threads * _AHEAD))
        for future in futures:
            self._take(future)
            for each in itertools.islice(batches_left, 1):
                futures.add(self._submit(*each))
        for at in self._suspects:
            self._take(self._submit(at, self._batch_at(at, 1)), alone=True)
        return Summary(
            progress=self._progress(),
            outputs=tuple((self._found[at], self._outputs[at]) for at in sorted(self._outputs)),
            failed=tuple(self._failed[at] for at in sorted(self._failed)),
        )

    def _batches(self) -> Iterator[tuple[int, Batch]]:
        """Yield batches, each with the position of its first entry."""
        threads = sum(self._client.nthreads().values()) or 1
        at = 0
        while left := len(self._found) - at:
            size = batch_size(left, threads, self._progress().rate or None)
            yield at, self._batch_at(at, size)
            at += size

    def _batch_at(self, at: int, size: int) -> Batch:
        items = tuple(self._item(entry) for entry in self._found[at : at + size])
        return dataclasses.replace(self._batch, items=items)

    def _item(self, entry: ProjectEntry) -> Item:
        known: list[RecordedOutput | None] = []
        if self._resumed:
            with contextlib.suppress(RumpbundleError):  # what is wrong with it, the worker says
                known = [self._record.outputs.get(path) for path in self._paths(entry)]
        return Item(name=entry.name, row=entry.row, known=tuple(each for each in known if each is not None))

    def _paths(self, entry: ProjectEntry) -> list[str]:
        """Return the absolute paths of the outputs of *entry*.

        Only its name and its directory differ from row to row: the client has no time to look at all the rest.
        """
        tails = self._tails.get(entry.name)
        if tails is None:
            targets = entry.targets((), self._directory)
            tails = [target.output.name.removeprefix(entry.label) for target in targets]
            if "{" not in str(self._project.images[entry.name]["formats"]):
                self._tails[entry.name] = tails
        place = self._directory or entry.at(entry.output)
        if place not in self._places:
            self._places[place] = os.path.abspath(place)
        return [os.path.join(self._places[place], entry.label + tail) for tail in tails]

    def _submit(self, at: int, batch: Batch) -> Any:
        key = f"rumpbundle-{self._record.now}-{os.getpid()}-{at}-{len(batch.items)}"
        future = self._client.submit(batches.run, batch, key=key, pure=False)
        future.rumpbundle = at, len(batch.items)
        return future

    def _take(self, future: Any, alone: bool = False) -> None:
        """Note what became of a batch; what workers died over is a suspect, until it was tried *alone*."""
        from distributed.scheduler import KilledWorker

        at, count = future.rumpbundle
        try:
            done: tuple[Done, ...] = future.result()
        except KilledWorker:
            if not alone:  # whatever else these workers had to do is said to have killed them, too
                self._suspects.extend(range(at, at + count))
                return
            error = ToolError(f"the workers that made it died, {_STRIKES} one after the other")
            done = (Done(failure=Failure.of(error)),)
        finally:
            future.release()
        self._record.add([output for each in done for output in each.outputs])
        for position, each in enumerate(done, at):
            self._made += each.made
            if each.failure is None:
                self._outputs[position] = each.outputs
            else:
                self._failed[position] = Failed(entry=self._found[position], failure=each.failure)
                self._complain(self._failed[position])
        self._report(self._progress())

    def _progress(self) -> Progress:
        return Progress(
            total=len(self._found),
            done=len(self._outputs),
            made=self._made,
            failed=len(self._failed),
            seconds=environment.monotonic() - self._began,
        )
