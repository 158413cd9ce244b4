"""Threads of matrix products, which are those of the process and not of the thread that asks for a product."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from threadpoolctl import threadpool_limits


class OneThread:
    """Matrix products of this process compute in one thread as long as any of its threads asks for that.

    So cores are not shared by several products, and sums are the same however many threads work at a time.
    """

    def __init__(self) -> None:
        self.lock, self.users = threading.Lock(), 0

    @contextmanager
    def held(self) -> Iterator[None]:
        """Ask for it within the block; the first one sets the limit, and the last one takes it away."""
        with self.lock:
            if not self.users:
                self.limits = threadpool_limits(1)
            self.users += 1
        try:
            yield
        finally:
            with self.lock:
                self.users -= 1
                if not self.users:
                    self.limits.restore_original_limits()


one_thread = OneThread().held
