"""The store as a process: producers with certificates, receipts, keys, what is missing, and how it ends."""

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from store_rig import CLOCK, ORIGIN, REVIEWER, Producer, StoreProcess, answers, appending, asking, period_keys, send

from sidecar.api.v1 import oversight_pb2 as pb
from sidecar.oversight.producers import revoke_producer
from sidecar.record import encode_digest, leaf_digest, promise_message
from sidecar.tlog.checkpoint import open_checkpoint
from sidecar.tlog.key import Verifier
from sidecar.tlog.merkle import leaf_hash, verify_range

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]


@pytest.fixture
def store(tmp_path):
    with StoreProcess(tmp_path) as store:
        yield store


def places(response):
    kind = response.WhichOneof("kind")
    ranges = response.accepted.ranges if kind == "accepted" else [response.receipt.range]
    return kind, [(one.first_seq, one.count, one.first_index) for one in ranges]


async def test_a_batch_is_promised_then_proven(store):
    producer = Producer().run(300)
    identity = store.register(producer)
    store.start()
    responses = await send(store, producer, identity, (0, 200), (200, 300), (100, 300))
    kinds = [places(response) for response in responses]
    assert kinds[:3] == [("accepted", [(0, 200, 1)]), ("accepted", [(200, 100, 201)]), ("accepted", [(100, 200, 101)])]
    accepted = responses[0].accepted
    store.log_key.public_key().verify(accepted.signature, promise_message(accepted.promise))
    promise = pb.Promise.FromString(accepted.promise)
    assert (promise.origin, list(promise.ranges)) == (ORIGIN, list(accepted.ranges))
    proven = set()
    for response in responses[3:]:
        receipt = response.receipt
        tree = open_checkpoint(receipt.checkpoint, [Verifier(store.signer.key)]).checkpoint
        first, count = receipt.range.first_seq, receipt.range.count
        hashes = [leaf_hash(item.leaf) for item in producer.items[first : first + count]]
        verify_range(hashes, receipt.range.first_index, tree.size, list(receipt.proof), tree.root)
        proven |= set(range(first, first + count))
    assert proven == set(range(300))


async def test_receipts_are_given_again_after_reconnecting(store):
    producer = Producer().run(50)
    identity = store.register(producer)
    store.start()
    await send(store, producer, identity, (0, 30), (30, 50))
    (again,) = await send(store, producer, identity, receipts_from=35)
    assert places(again) == ("receipt", [(30, 20, 31)])
    (whole,) = await send(store, producer, identity, receipts_from=0)
    assert places(whole) == ("receipt", [(0, 50, 1)])
    resent = await send(store, producer, identity, (10, 20), receipts_from=50)
    assert [places(one) for one in resent] == [("accepted", [(10, 10, 11)]), ("receipt", [(10, 10, 11)])]


async def refused(call):
    """The last Rejected and the status with which the stream ended."""
    rejected = None
    try:
        while (response := await call.read()) is not grpc.aio.EOF:
            rejected = response.rejected if response.HasField("rejected") else rejected
    except grpc.aio.AioRpcError as error:
        return rejected, error.code()
    return rejected, await call.code()


async def test_only_registered_producers_append(store):
    producer, other = Producer().run(3), Producer(name="other").run(3)
    identity, others = store.register(producer), store.register(other)
    store.start()
    seal = store.sealing_key.public_key()
    async with appending(store, "spiffe://test/nobody") as call:
        rejected, code = await refused(call)
        assert (rejected.code, code) == ("unknown_producer", grpc.StatusCode.UNAUTHENTICATED)
    async with appending(store, others) as call:
        await call.write(producer.open(seal))
        rejected, code = await refused(call)
        assert (rejected.code, code) == ("unknown_producer", grpc.StatusCode.UNAUTHENTICATED)
    async with appending(store, identity) as call:
        await call.write(producer.open(seal))
        await call.write(producer.message(0, 2))
        assert places((await answers(call, 1))[0]) == ("accepted", [(0, 2, 1)])
        # Revoked while it is connected: the next batch is refused, without a restart.
        revoke_producer(store.folder / "producers.jsonl", name=producer.name, now=CLOCK)
        await call.write(producer.message(2, 3))
        rejected, code = await refused(call)
        assert (rejected.code, code) == ("unknown_producer", grpc.StatusCode.UNAUTHENTICATED)


async def test_without_a_certificate_nobody_speaks(store):
    store.start()
    for port in store.ports.values():
        credentials = grpc.ssl_channel_credentials(store.authority.pem)
        async with grpc.aio.secure_channel(f"localhost:{port}", credentials) as channel:
            call = channel.unary_unary("/sidecar.api.v1.KeyService/GetSealingKey")
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(b"", timeout=3)
            assert caught.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


async def test_a_bad_batch_is_refused_and_the_stream_goes_on(store):
    producer = Producer().run(4)
    identity = store.register(producer)
    store.start()
    forged = Producer(name=producer.name, epoch=producer.epoch)
    forged.items = producer.items
    async with appending(store, identity) as call:
        await call.write(producer.open(store.sealing_key.public_key()))
        await call.write(forged.message(0, 2))
        await call.write(producer.message(0, 4))
        first, second = await answers(call, 2)
    assert (first.rejected.code, first.rejected.first_seq, first.rejected.retry) == ("bad_signature", 0, False)
    assert places(second) == ("accepted", [(0, 4, 1)])


async def test_a_key_sealed_to_another_store_is_refused_at_once(store):
    producer = Producer().run(1)
    identity = store.register(producer)
    store.start()
    async with appending(store, identity) as call:
        await call.write(producer.open(X25519PrivateKey.generate().public_key()))
        rejected, code = await refused(call)
    assert (rejected.code, code) == ("bad_batch", grpc.StatusCode.INVALID_ARGUMENT)
    assert "sealing key" in rejected.message


async def test_a_batch_without_its_open_is_refused(store):
    producer = Producer().run(1)
    identity = store.register(producer)
    store.start()
    async with appending(store, identity) as call:
        await call.write(producer.message(0, 1))
        (answer,) = await answers(call, 1)
    assert answer.rejected.code == "bad_batch"


async def test_both_versions_are_kept_and_shown(store):
    producer = Producer().run(4)
    identity = store.register(producer)
    store.start()
    await send(store, producer, identity, (0, 4))
    liar = Producer(name=producer.name, key=producer.key, epoch=producer.epoch, epoch_key=producer.epoch_key)
    liar.items = [*producer.items[:3], producer.make(3, _named(producer, 2), "decision", b'{"other":1}')]
    responses = await send(store, liar, identity, (2, 4), receipts_from=4)
    assert places(responses[0])[0] == "accepted"
    assert len(responses[0].accepted.ranges) == 2
    async with asking(store) as query:
        found = await query.Search(pb.SearchRequest(producer=producer.name))
        assert [record.standing for record in found.records] == ["chain"] * 3 + ["equivocation"] * 2
        completeness = await query.GetCompleteness(pb.GetCompletenessRequest())
        assert [(one.kind, one.first_seq) for one in completeness.findings] == [("equivocation", 3)]


def _named(producer, seq):
    return encode_digest(leaf_digest(producer.items[seq].leaf))


async def test_completeness_shows_gaps_and_lost_tails(store):
    producer = Producer().run(10)
    identity = store.register(producer)
    store.start()
    await send(store, producer, identity, (0, 4), (7, 10))
    unlinked = producer.next_epoch(5, linked=False)
    linked = unlinked.run(3).next_epoch(9).run(2)
    await send(store, unlinked, identity, (0, 3))
    await send(store, linked, identity, (0, 2))
    async with asking(store) as query:
        answer = await query.GetCompleteness(pb.GetCompletenessRequest())
        kinds = {(one.kind, one.epoch, one.first_seq, one.count) for one in answer.findings}
        assert kinds == {("gap", producer.epoch, 4, 3), ("tail_unknown", producer.epoch, 10, 0)}
        assert answer.committed >= answer.tree_size > 12
        await send(store, producer, identity, (4, 7))
        answer = await query.GetCompleteness(pb.GetCompletenessRequest())
        assert {one.kind for one in answer.findings} == {"tail_unknown"}


async def test_keys_are_issued_ahead_and_stay_the_same(store):
    producer, other = Producer(), Producer(name="other")
    identity = store.register(producer)
    store.start()
    first, sealing = await period_keys(store, producer, identity)
    assert sealing.public_key == store.sealing_key.public_key().public_bytes_raw()
    assert len({key.key for key in first.keys}) == 3
    assert [getattr(key, "from") for key in first.keys[1:]] == [key.until for key in first.keys[:-1]]
    assert [key.period for key in first.keys] == [getattr(key, "from")[:10] for key in first.keys]
    for wrong, name in ((identity, other), ("spiffe://test/nobody", producer), (REVIEWER, producer)):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await period_keys(store, name, wrong)
        assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
    store.kill()
    store.start()
    assert (await period_keys(store, producer, identity))[0] == first
    raw = b"".join(path.read_bytes() for path in store.folder.glob("keys.sqlite*"))
    assert not any(key.key in raw for key in first.keys)


async def test_stopping_is_orderly_and_the_store_accounts_for_itself(store):
    producer = Producer().run(5)
    identity = store.register(producer)
    store.start()
    async with appending(store, identity) as call:
        await call.write(producer.open(store.sealing_key.public_key()))
        await call.write(producer.message(0, 5))
        await answers(call, 1)
        assert store.stop() == 0
    store.start()
    async with asking(store) as query:
        own = await query.Search(pb.SearchRequest(producer="store"))
        types = [record.leaf.split(b'"type":"')[1].split(b'"')[0] for record in own.records]
        assert types == [b"open", b"close", b"open"]
        assert [record.standing for record in own.records] == ["chain"] * 3
        findings = (await query.GetCompleteness(pb.GetCompletenessRequest())).findings
        assert [one for one in findings if one.producer == "store"] == []
    store.kill()
    store.start()
    async with asking(store) as query:
        findings = (await query.GetCompleteness(pb.GetCompletenessRequest())).findings
        assert [one for one in findings if one.producer == "store"] == []
