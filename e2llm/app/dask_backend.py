"""Joblib's Dask backend for calls that take seconds, on certain workers, with a clear word if all of them are lost.

Joblib itself is told of results alone. So it would wait for ever for a call that is given up, or if nobody is left.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any

from distributed import Client
from joblib._dask import DaskDistributedBackend

from ..core.files import one_line
from .cluster import ClusterError

_WATCH_S = 0.5
_KEPT = "what is finished is kept, and the same command goes on with the others"


class _Lost:
    """What ended a call that gave no result."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


class CertainWorkers(DaskDistributedBackend):
    """Backend for ``joblib.parallel_config``; Dask makes the calls of a lost worker again on another one.

    Parameters
    ----------
    client : Client, optional
        From :func:`e2llm.app.cluster.connected`.
    workers : sequence of str
        Addresses of the workers that may be used.
    """

    def __init__(self, client: Client | None = None, workers: Sequence[str] = ()) -> None:
        super().__init__(client=client, workers=list(workers), allow_other_workers=False, pure=False)
        self.allowed, self.given = frozenset(workers), list[Future]()

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """Threads of all workers, at least 2: joblib would make the calls here if it were 1.

        Parameters
        ----------
        n_jobs : int, optional
            Not used.
        """
        there = self.client.nthreads()
        return max(2, sum(there.get(worker, 0) for worker in self.allowed))

    def compute_batch_size(self) -> int:
        """One call at a time: it is what is lost with a worker."""
        return 1

    def submit(self, func: Callable, callback: Callable) -> Future:
        """As in joblib, but the callback also hears of what ended a call that gave no result.

        Parameters
        ----------
        func : callable
            Batch of calls.
        callback : callable
            Takes what they gave.
        """
        future = super().submit(func, callback)
        self.given.append(future)
        future.add_done_callback(lambda ended: callback(_Lost(ended.exception())) if ended.exception() else None)
        return future

    def retrieve_result_callback(self, out: Any) -> Any:
        """The result of a batch; raises what ended it.

        Parameters
        ----------
        out : object
            What the callback was called with.
        """
        if isinstance(out, _Lost) and isinstance(out.error, ClusterError):
            raise out.error
        if isinstance(out, _Lost):
            raise ClusterError(f"A call was given up ({one_line(out.error)}), most often because workers lack memory: "
                               f"{_KEPT}.") from out.error
        if isinstance(out, BaseException):  # that of a future that was cancelled, as all are with the scheduler
            raise ClusterError(f"The scheduler was lost ({one_line(out)}): {_KEPT}.") from out
        return super().retrieve_result_callback(out)

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Within the block calls end with :class:`ClusterError` if no worker, or no scheduler, is left for them."""
        over = threading.Event()
        thread = threading.Thread(target=self._watch, args=(over,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _watch(self, over: threading.Event) -> None:
        while not over.wait(_WATCH_S):
            if reason := self._reason():
                for future in [*self.given]:
                    with contextlib.suppress(Exception):  # it has ended
                        future.set_exception(ClusterError(f"{reason}: {_KEPT}."))
                return

    def _reason(self) -> str:
        try:
            there = self.client.nthreads()
        except Exception as error:  # of the connection
            return f"The scheduler was lost ({one_line(error)})"
        return "" if self.allowed & there.keys() else f"All workers were lost ({', '.join(sorted(self.allowed))})"
