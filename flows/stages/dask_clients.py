"""Dask, where a config asks for it: an existing scheduler by its address, or processes of this machine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from flows.errors import StageError

if TYPE_CHECKING:
    from distributed import Client, Future

Result = TypeVar("Result")
ANSWER_SECONDS = 10.0
"""How long a scheduler may take to answer."""


@contextmanager
def dask_client(address: str | None, workers: int | None, *, named: str = "run.dask") -> Iterator[Client]:
    """A client of the scheduler at `address`, or of `workers` local processes that end with it.

    `named` is the option that gave the address.
    Raises StageError when no scheduler answers at `address`, ConnectionError when local workers do not start.
    """
    from distributed import Client, LocalCluster

    if address is not None:
        try:
            client = Client(address, timeout=f"{ANSWER_SECONDS}s", set_as_default=False)
        except (OSError, ValueError) as error:
            raise StageError(
                f"{named}: no scheduler answers at {address}: {error}; start one (`dask scheduler`), or "
                f"leave out {named}"
            ) from error
        with client:
            yield client
        return
    try:
        cluster = LocalCluster(
            n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=40
        )
    except RuntimeError as error:
        # A worker that is killed while it starts; the next try has new ones.
        raise ConnectionError(f"local Dask workers did not start: {error}") from error
    with cluster, Client(cluster, set_as_default=False) as client:
        yield client


def results_of(futures: Iterable[Future[Result]], client: Client) -> Iterator[Result]:
    """What tasks return, as they end. Raises ConnectionError when their workers die again and again."""
    from distributed import KilledWorker, as_completed
    from distributed.comm import CommClosedError

    try:
        for future in as_completed(futures, loop=client.loop):
            yield future.result()
            future.release()
    except (KilledWorker, CommClosedError) as error:
        raise ConnectionError(f"Dask workers were lost: {error}") from error
