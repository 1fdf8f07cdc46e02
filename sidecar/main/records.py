"""Everything between a decision and the store: spool, recorder, period keys, delivery; composed, started and stopped."""

import asyncio
import random
import time
from collections.abc import Coroutine, Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from shutil import disk_usage
from typing import TYPE_CHECKING, Any, Self

from sidecar.attributes.resource import Describer
from sidecar.enforcement.delivery import Delivery
from sidecar.enforcement.periods import PeriodKeys
from sidecar.enforcement.receipts import ReceiptVerifier
from sidecar.enforcement.recorder import SpoolRecorder
from sidecar.enforcement.transport import OperatorLog
from sidecar.enforcement.upstream import open_channel
from sidecar.errors import ConfigurationError, RecordError
from sidecar.main import keys
from sidecar.main.build import client_tls, limits
from sidecar.main.given import FILE_SECONDS, clock, naming, now
from sidecar.observability.metrics import Gauges
from sidecar.record import RecordType
from sidecar.spool.log import Spool
from sidecar.spool.slot import SlotInUseError, SpoolOptions

if TYPE_CHECKING:  # the models are pydantic's, and a process that serves has none of it
    from sidecar.settings.sidecar import SidecarSettings

Details = Mapping[str, str | int | bool | list[str] | None]
MAX_SERVICES = 128
"""Names of services in an `open` record, at most: it has to fit into 64 KiB."""
_FIRST_KEY_SECONDS = 0.7
"""How long a first start waits for the key service before it serves (and refuses) without."""


class FollowedTrust:
    """The trust file, taken up when it changes: a log's new key, or other witnesses, need no restart."""

    def __init__(self, settings: "SidecarSettings", receipts: ReceiptVerifier, log: OperatorLog) -> None:
        self._settings, self._receipts, self._log = settings, receipts, log
        self._known = self._content()
        self._problem = ""

    async def run(self) -> None:
        """Look every second, until cancelled. A file that cannot be used is reported once; what was trusted stays."""
        while True:
            await asyncio.sleep(FILE_SECONDS)
            self.look()

    def look(self) -> None:
        """Look once."""
        content = self._content()
        if content == self._known:
            return
        try:
            trusted = keys.trust(self._settings)
        except ConfigurationError as error:
            if str(error) != self._problem:
                self._log.error("trust_refused", detail=str(error))
            self._problem = str(error)
            return
        self._known, self._problem = content, ""
        self._receipts.trust(trusted)
        self._log.warning("trust_taken_up", file=str(self._settings.oversight.trust))

    def _content(self) -> bytes:
        try:
            return self._settings.oversight.trust.read_bytes()
        except OSError:
            return b""


class Records:
    """The sidecar's records. Use as: `open`, `start`, `run` in the background; at the end `drain`, `close`."""

    def __init__(
        self, spool: Spool, recorder: SpoolRecorder, periods: PeriodKeys, delivery: Delivery, trusted: FollowedTrust,
        log: OperatorLog,
    ) -> None:  # fmt: skip
        self.recorder = recorder
        self._spool, self._periods, self._delivery, self._log = spool, periods, delivery, log
        self._trusted = trusted

    @classmethod
    def open(cls, settings: "SidecarSettings", log: OperatorLog, slots: Iterable[int] = (0,)) -> Self:
        """Take the first of these slots that is free, and read what is there. On the event loop.

        ConfigurationError, or IntegrityError for damage; SlotInUseError when none of them is free.
        """
        key = keys.producer_key(settings)
        tls = client_tls(settings.oversight.tls, "oversight.tls")
        bounds = limits(settings)
        periods = period_keys(settings)
        receipts = ReceiptVerifier(keys.trust(settings))
        spool = _first_free(settings, keys.seal_key(settings), slots)
        delivery = Delivery(
            spool,
            private_key=key,
            channel=lambda: open_channel(settings.oversight.address, tls, bounds),
            receipts=receipts,
            now=now,
            jitter=random.random,
            log=log,
        )
        trusted = FollowedTrust(settings, receipts, log)
        return cls(spool, SpoolRecorder(spool, periods, clock=clock), periods, delivery, trusted, log)

    @property
    def slot(self) -> int:
        """The slot of the spool that is this process's own."""
        return self._spool.options.slot

    async def start(self, about: Details | None = None) -> None:
        """Begin the epoch: `open` (with `about`), and what the predecessor owed, are committed when this returns.

        ConfigurationError when the disk does not take them.
        """
        try:
            await self.recorder.start(dict(about or {}))
        except RecordError as error:
            raise ConfigurationError(
                f"the records cannot be begun: {error.operator}", where="record.spool",
                fix="Give the disk what it lacks, then start again.",
            ) from None  # fmt: skip
        for torn in self._spool.recovered.torn:
            self._log.warning("torn_tail_cut", file=str(torn.path), offset=torn.offset, bytes=torn.size, why=torn.why)
        if self._periods.current(now()) is None:
            try:
                async with asyncio.timeout(_FIRST_KEY_SECONDS):
                    await self._periods.refresh()
            except Exception as error:  # noqa: BLE001 - `run` tries again and says why
                self._log.warning("no_period_key", detail=f"{type(error).__name__}: calls are refused until one comes")

    def run(self) -> list[Coroutine[Any, Any, None]]:
        """What runs in the background until cancelled."""
        return [self._periods.run(), self._delivery.run(), self._trusted.run()]

    async def say(self, kind: RecordType, details: Details) -> None:
        """Record an event. Owed, and logged, when the disk does not take it now."""
        try:
            await self.recorder.event(kind, dict(details), "written")
        except RecordError as error:
            self._log.error("event_owed", type=kind, detail=error.operator)

    async def drain(self, seconds: float) -> bool:
        """Write `close`, and give the store a moment to take what is left; whether it has all of it."""
        try:
            await self.recorder.stop()
        except RecordError as error:
            self._log.error("close_not_recorded", detail=error.operator)
        sent = await self._delivery.drain(seconds)
        if not sent:
            self._log.warning("spool_not_empty", records=self._spool.depth_records,
                              detail="what is left is sent after the next start")  # fmt: skip
        return sent

    async def close(self) -> None:
        """Give the spool back."""
        await self._spool.close()

    def status(self) -> dict[str, object]:
        """For `sidecar status`."""
        sent = self._delivery.status
        return {
            "store_connected": sent.connected,
            "spool_records": self._spool.depth_records,
            "spool_bytes": self._spool.depth_bytes,
            "receipt_lag_seconds": round(self._spool.receipt_lag(), 3),
            "open_calls": self._spool.open_calls,
            "acknowledged": sent.acknowledged,
        }

    def problems(self) -> list[str]:
        """What an operator has to mend."""
        sent = self._delivery.status
        found = [
            (self._spool.last_error, "spool"),
            (self._periods.last_error, "period keys"),
            (sent.alarm, "TWO HISTORIES OF THE LOG"),
            (sent.refused, "the store refuses"),
            ("" if sent.connected else sent.last_error, "store"),
        ]
        if self._periods.current(now()) is None:
            found.append(("none for now, so every call is refused", "period keys"))
        return [f"{name}: {text}" for text, name in found if text]

    def gauges(self) -> Gauges:
        """For metrics."""
        sent = self._delivery.status
        return {
            "spool_records": ("Records without a verified receipt", lambda: float(self._spool.depth_records)),
            "spool_bytes": ("Bytes in the spool", lambda: float(self._spool.depth_bytes)),
            "receipt_lag_seconds": ("Age of the oldest record without a receipt", self._spool.receipt_lag),
            "store_connected": ("1 while records flow to the store", lambda: float(sent.connected)),
            "spool_max_bytes": ("At it every call is refused", lambda: float(self._spool.options.max_bytes)),
            "spool_free_bytes": ("Free where it is", lambda: float(disk_usage(self._spool.options.folder).free)),
            "open_calls": ("Calls without an outcome", lambda: float(self._spool.open_calls)),
            "delivery_sent": ("Records sent", lambda: float(sent.sent)),
            "delivery_acknowledged": ("Records with a receipt", lambda: float(sent.acknowledged)),
            "delivery_rejected": (
                "Batches refused",
                lambda: {(code,): float(n) for code, n in list(sent.rejected.items())},
            ),
            "delivery_bad_receipts": ("Receipts that did not verify", lambda: float(sent.bad_receipts)),
            "delivery_refused": ("1 while the store refuses", lambda: float(bool(sent.refused))),
            "delivery_alarm": ("1 once there were two histories", lambda: float(bool(sent.alarm))),
            "period_key": ("1 while there is a period key", lambda: float(self._periods.current(now()) is not None)),
        }


def _first_free(settings: "SidecarSettings", store_key: bytes, slots: Iterable[int]) -> Spool:
    taken: SlotInUseError | None = None
    for slot in slots:
        options = SpoolOptions(
            folder=settings.record.spool,
            producer=settings.producer.name,
            slot=slot,
            max_bytes=settings.record.max_bytes,
        )
        try:
            return Spool.open(options, store_key=store_key, now=now, monotonic=time.monotonic)
        except SlotInUseError as error:
            taken = taken or error
    raise taken or ConfigurationError("there is no slot to choose from", where="record.spool")


def period_keys(settings: "SidecarSettings") -> PeriodKeys:
    """The period keys as the sealed file beside the spool has them, if there is one. IntegrityError for damage."""
    tls, bounds = client_tls(settings.oversight.tls, "oversight.tls"), limits(settings)
    found = PeriodKeys(
        producer=settings.producer.name,
        private_key=keys.producer_key(settings),
        file=settings.record.spool / "period-keys",
        channel=lambda: open_channel(settings.oversight.keys, tls, bounds),
        now=now,
        jitter=random.random,
    )
    with naming("record.spool"):
        found.load()
    return found


def about(settings: "SidecarSettings", described: Describer) -> Details:
    """What the `open` record says of this sidecar: what it guards and where, its version, and who holds the data.

    (CISA security requirements I.A.1; 28 CFR 202.1103(d)(1), 202.1104(c)(1).)
    """
    try:
        release: str | None = version("customhouse")
    except PackageNotFoundError:  # run from a source tree that is not installed
        release = None
    services = sorted({one.path.removeprefix("/").rpartition("/")[0] for one in described})
    holder = settings.holder
    return {
        "services": services[:MAX_SERVICES],
        "upstream": settings.upstream.address,
        "listen": [one.address for one in settings.listen],
        "version": release,
        "holder_name": None if holder is None else holder.name,
        "holder_address": None if holder is None else holder.address,
        "holder_contact": None if holder is None else holder.contact,
    }
