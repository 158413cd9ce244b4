"""Matrix products in one thread, as long as anybody asks for it."""

from __future__ import annotations

import numpy as np
from threadpoolctl import threadpool_info, threadpool_limits

from e2llm.core.threads import OneThread


def most() -> int:
    np.ones((2, 2)) @ np.ones((2, 2))  # loads the library of products
    return max(pool["num_threads"] for pool in threadpool_info())


def test_products_compute_in_one_thread_until_the_last_user_has_ended():
    products = OneThread()
    with threadpool_limits(2):
        assert most() == 2
        first, second = products.held(), products.held()
        first.__enter__()
        assert most() == 1
        second.__enter__()
        first.__exit__(None, None, None)
        assert most() == 1, "the second one goes on"
        second.__exit__(None, None, None)
        assert most() == 2
        with products.held():
            assert most() == 1, "it can be asked for again"
