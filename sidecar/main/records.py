"""Everything between a decision and the store: spool, recorder, period keys, delivery; composed, started and stopped."""

import asyncio
import random
import time
from collections.abc import Coroutine, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Self

from sidecar.attributes.resource import Describer
from sidecar.enforcement.delivery import Delivery
from sidecar.enforcement.periods import PeriodKeys
from sidecar.enforcement.receipts import ReceiptVerifier
from sidecar.enforcement.recorder import SpoolRecorder
from sidecar.enforcement.transport import OperatorLog
from sidecar.enforcement.upstream import open_channel
from sidecar.errors import ConfigurationError, RecordError
from sidecar.main import keys
from sidecar.main.build import client_tls, limits, naming, now
from sidecar.observability.metrics import Gauges
from sidecar.record import RecordType
from sidecar.settings.sidecar import SidecarSettings
from sidecar.spool.log import Spool
from sidecar.spool.slot import SpoolOptions

Details = Mapping[str, str | int | bool | list[str] | None]
MAX_SERVICES = 128
"""Names of services in an `open` record, at most: it has to fit into 64 KiB."""
_FIRST_KEY_SECONDS = 0.7
"""How long a first start waits for the key service before it serves (and refuses) without."""


class Records:
    """The sidecar's records. Use as: `open`, `start`, `run` in the background; at the end `drain`, `close`."""

    def __init__(
        self, spool: Spool, recorder: SpoolRecorder, periods: PeriodKeys, delivery: Delivery, log: OperatorLog
    ) -> None:
        self.recorder = recorder
        self._spool, self._periods, self._delivery, self._log = spool, periods, delivery, log

    @classmethod
    def open(cls, settings: SidecarSettings, log: OperatorLog) -> Self:
        """Take the spool and read what is there. ConfigurationError, or IntegrityError for damage. On the event loop."""
        key = keys.producer_key(settings)
        tls = client_tls(settings.oversight.tls, "oversight.tls")
        bounds = limits(settings)
        options = SpoolOptions(
            folder=settings.record.spool, producer=settings.producer.name, max_bytes=settings.record.max_bytes
        )
        periods = period_keys(settings)
        receipts = ReceiptVerifier(keys.trust(settings))
        spool = Spool.open(options, store_key=keys.seal_key(settings), now=now, monotonic=time.monotonic)
        delivery = Delivery(
            spool,
            private_key=key,
            channel=lambda: open_channel(settings.oversight.address, tls, bounds),
            receipts=receipts,
            now=now,
            jitter=random.random,
            log=log,
        )
        return cls(spool, SpoolRecorder(spool, periods, now=now), periods, delivery, log)

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
        return [self._periods.run(), self._delivery.run()]

    async def say(self, kind: RecordType, details: Details) -> None:
        """Record an event. Owed, and logged, when the disk does not take it now."""
        try:
            await self.recorder.event(kind, dict(details), "written")
        except RecordError as error:
            self._log.error("event_owed", type=kind, detail=error.operator)

    async def drain(self, seconds: float) -> None:
        """Write `close`, and give the store a moment to take what is left."""
        try:
            await self.recorder.stop()
        except RecordError as error:
            self._log.error("close_not_recorded", detail=error.operator)
        if not await self._delivery.drain(seconds):
            self._log.warning("spool_not_empty", records=self._spool.depth_records,
                              detail="what is left is sent after the next start")  # fmt: skip

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
        return {
            "spool_records": ("Records without a verified receipt", lambda: float(self._spool.depth_records)),
            "spool_bytes": ("Bytes in the spool", lambda: float(self._spool.depth_bytes)),
            "receipt_lag_seconds": ("Age of the oldest record without a receipt", self._spool.receipt_lag),
            "store_connected": ("1 while records flow to the store", lambda: float(self._delivery.status.connected)),
        }


def period_keys(settings: SidecarSettings) -> PeriodKeys:
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


def about(settings: SidecarSettings, described: Describer) -> Details:
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
