"""When segments that nothing needs any more go."""

from collections.abc import Callable

from sidecar.spool.committer import Committer
from sidecar.spool.segment import Head
from sidecar.spool.shelf import Deletion, Shelf


class Deletions:
    """One at a time, in the committer's thread. `failed` is told why one was not; `again` is called after each."""

    def __init__(
        self, shelf: Shelf, committer: Committer, *, failed: Callable[[OSError], None], again: Callable[[], None]
    ) -> None:
        self._shelf, self._committer, self._failed, self._again = shelf, committer, failed, again
        self._after: int | None = None
        self._running = False

    def want(self, seq: int) -> None:
        """There may be something to delete, once all below `seq` is durable."""
        self._after = seq

    def go(self, durable: int, head: Head | None) -> bool:
        """Begin, if something is wanted. False when more than `[0, durable)` has to be durable first.

        `head`: the chain's last durable record.
        """
        if self._after is None or self._running:
            return True
        if durable < self._after:
            return False
        self._after = None
        plan = self._shelf.plan_deletion(head)
        if plan is not None:
            self._running = True
            self._committer.submit(lambda: self._shelf.delete(plan), lambda error: self._done(plan, error))
        return True

    def finish(self, head: Head | None) -> None:
        """Delete here and now what may go. The committer has ended."""
        plan = self._shelf.plan_deletion(head)
        if plan is None:
            return
        try:
            self._shelf.delete(plan)
        except OSError as error:
            self._failed(error)
        else:
            self._shelf.forget(plan)

    def _done(self, plan: Deletion, error: OSError | None) -> None:
        self._running = False
        if error is None:
            self._shelf.forget(plan)
        else:
            self._failed(error)
        self._again()
