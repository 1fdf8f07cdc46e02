"""What operators ask a sidecar of several workers: one admin socket and one page of metrics for all. Imports no grpc."""

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from pathlib import Path

import msgspec
from prometheus_client.metrics_core import Metric

from sidecar.enforcement.admin import AdminSocket, Answer, Command
from sidecar.errors import ConfigurationError
from sidecar.main import worker_channel as said
from sidecar.main.worker_crew import Crew
from sidecar.main.worker_metrics import Family, Joined
from sidecar.main.worker_status import shadows_together, together
from sidecar.observability.exposition import Exposition, serve
from sidecar.observability.metrics import CallStats, Gauges
from sidecar.observability.outside import release
from sidecar.settings.sidecar import SidecarSettings

_PAGE_SECONDS = 2.0
_POLICY = ("policy.status", "policy.activate", "policy.rollback")


class Outside:
    """The admin socket and the metrics listener. `crew` gives who serves now; None before the first does."""

    def __init__(self, stats: CallStats, crew: Callable[[], Crew | None], retiring: Collection[Crew]) -> None:
        """`retiring`: those before it that have not gone yet."""
        self._crew, self._retiring = crew, retiring
        self._admin: tuple[Path, AdminSocket] | None = None
        self._page: tuple[str, Callable[[], None]] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        gauges: Gauges = {
            "workers": ("Workers", self._states),
            "worker_restarts": ("Restarts", lambda: {
                (str(one),): float(n) for one, n in self._now().generation.restarts.items()}),
            "build_info": ("1", lambda: {(release(),): 1.0}),
        }  # fmt: skip
        self._own = Exposition(stats, gauges)

    async def move(self, settings: SidecarSettings) -> None:
        """Listen where the settings say; what is there already goes on. ConfigurationError: then nothing has changed."""
        self._loop = asyncio.get_running_loop()
        listen = None if settings.metrics is None else settings.metrics.listen
        path = None if settings.admin is None else settings.admin.socket
        old_page, old_admin = self._page, self._admin
        page, admin = old_page, old_admin
        try:
            if (None if old_page is None else old_page[0]) != listen:
                page = None if listen is None else (listen, self._serve(listen))
            if (None if old_admin is None else old_admin[0]) != path:
                admin = None if path is None else (path, await self._open(path))
        except BaseException:
            if page is not None and page is not old_page:
                await asyncio.to_thread(page[1])
            raise
        self._page, self._admin = page, admin
        if old_page is not None and old_page is not page:
            await asyncio.to_thread(old_page[1])
        if old_admin is not None and old_admin is not admin:
            await old_admin[1].stop()

    async def close(self) -> None:
        """Stop listening."""
        if self._admin is not None:
            await self._admin[1].stop()
        if self._page is not None:
            await asyncio.to_thread(self._page[1])  # a page that is being made waits for this loop

    async def status(self) -> dict[str, object]:
        """As `sidecar status` shows it: the keys of a single process, and `workers`."""
        crew = self._now()
        answers = await crew.generation.ask("status")
        found = {number: msgspec.msgpack.decode(body) for number, body in answers.items()}
        workers = [
            {"worker": number, "pid": one.pid, "slot": one.slot, "state": one.state,
             "restarts": crew.generation.restarts[number], **found.get(number, {})}
            for number, one in sorted(crew.generation.workers.items())
        ]  # fmt: skip
        mute = [
            f"worker {number} does not answer" for number, one in sorted(crew.generation.workers.items())
            if one.state == "serving" and number not in found
        ]  # fmt: skip
        whole = together(list(found.values()), [*crew.problems(), *mute])
        old = sum(sum(one.generation.states().values()) for one in self._retiring)
        return {**whole, "generation": crew.generation.number, "retiring": old, "workers": workers}

    def _now(self) -> Crew:
        crew = self._crew()
        if crew is None:
            raise ConfigurationError("the workers are not ready yet", fix="Try again in a few seconds.")
        return crew

    async def _open(self, path: Path) -> AdminSocket:
        async def status(_arguments: Sequence[str], _who: str) -> Answer:
            return await self.status()

        commands: dict[str, Command] = {"status": status, "shadow.status": self._shadows}
        admin = AdminSocket(path, commands | {name: self._about_policy(name) for name in _POLICY})
        await admin.start()
        return admin

    def _about_policy(self, name: str) -> Command:
        async def answer(arguments: Sequence[str], who: str) -> Answer:
            return await self._now().command(name, list(arguments), who)

        return answer

    async def _shadows(self, arguments: Sequence[str], who: str) -> Answer:
        crew = self._now()
        if crew.settings.shadow is None:
            raise ConfigurationError("no candidate is followed", where="shadow", fix="Name its bundle in the settings.")
        asked = said.Asked(name="shadow.status", arguments=list(arguments), who=who)
        found = await crew.generation.ask("command", asked)
        if not found:
            raise ConfigurationError("no worker answers", fix="`sidecar status` says why.")
        return shadows_together([msgspec.msgpack.decode(one) for one in found.values()])

    # -- metrics -----------------------------------------------------------------------------------------------------

    def _serve(self, listen: str) -> Callable[[], None]:
        host, _, port = listen.rpartition(":")
        return serve(Joined(self._families, self._workers), host, int(port), process=False)

    def _states(self) -> Mapping[tuple[str, ...], float]:
        found = dict(self._now().generation.states())
        for crew in list(self._retiring):
            for state, workers in crew.generation.states().items():
                found[state] += workers
        return {(state,): float(workers) for state, workers in found.items()}

    def _families(self) -> Iterable[Metric]:
        return self._own.collect()

    def _workers(self) -> Mapping[str, list[Family]]:
        """What the workers tell. On the exporter's threads."""
        with suppress(TimeoutError, CancelledError, RuntimeError, ConfigurationError):
            if self._loop is not None:
                return asyncio.run_coroutine_threadsafe(self._told(), self._loop).result(_PAGE_SECONDS * 2)
        return {}

    async def _told(self) -> Mapping[str, list[Family]]:
        """By worker; one of an older generation that has not gone yet is `NUMBER@GENERATION`."""
        current = self._now().generation
        older = [crew.generation for crew in self._retiring]
        answers = await asyncio.gather(
            current.ask("metrics", within=_PAGE_SECONDS),
            *(one.ask("metrics", within=_PAGE_SECONDS, state="draining") for one in older),
        )
        found = {str(number): said.read(body, list[Family]) for number, body in answers[0].items()}
        for one, answer in zip(older, answers[1:], strict=True):
            found |= {f"{number}@{one.number}": said.read(body, list[Family]) for number, body in answer.items()}
        return found
