"""The store as a process: producers with certificates, receipts, keys, reviewers' questions."""

import asyncio
from contextlib import asynccontextmanager

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from store_rig import CLOCK, ORIGIN, Producer, StoreProcess

from sidecar.api.v1 import oversight_pb2 as pb
from sidecar.api.v1 import oversight_pb2_grpc
from sidecar.oversight.producers import revoke_producer
from sidecar.record import EventBody, encode_body, encode_digest, leaf_digest, promise_message, pseudonym
from sidecar.tlog.checkpoint import open_checkpoint
from sidecar.tlog.key import Verifier
from sidecar.tlog.merkle import leaf_hash, verify_consistency, verify_range
from sidecar.tlog.proof import verify_proof
from sidecar.tlog.trust import Trust

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]
REVIEWER = "spiffe://test/reviewer"


@pytest.fixture
def store(tmp_path):
    with StoreProcess(tmp_path) as store:
        yield store


@asynccontextmanager
async def appending(store, identity):
    async with store.channel("append", identity) as channel:
        yield oversight_pb2_grpc.OversightStub(channel).Append()


@asynccontextmanager
async def asking(store, identity=REVIEWER):
    async with store.channel("query", identity) as channel:
        yield oversight_pb2_grpc.QueryStub(channel)


async def answers(call, count):
    """The next responses."""
    return [await asyncio.wait_for(call.read(), 20) for _ in range(count)]


async def send(store, producer, identity, *spans, receipts_from=0):
    """Send batches, then take every answer and receipt until the store has no more to say."""
    async with appending(store, identity) as call:
        await call.write(producer.open(store.sealing_key.public_key(), receipts_from))
        for span in spans:
            await call.write(producer.message(*span))
        await call.done_writing()
        responses = [response async for response in call]
    return responses


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


async def test_a_reviewer_gets_records_proofs_and_is_recorded(store):
    producer = Producer().run(20)
    identity = store.register(producer)
    store.start()
    await send(store, producer, identity, (0, 20))
    async with asking(store) as query:
        page = await query.Search(pb.SearchRequest(producer=producer.name, limit=15))
        rest = await query.Search(pb.SearchRequest(producer=producer.name, limit=15, cursor=page.next_cursor))
        records = [*page.records, *rest.records]
        assert [(one.leaf, one.body) for one in records] == [(item.leaf, item.body) for item in producer.items]
        assert rest.next_cursor == ""
        assert page.searched_to >= 21

        trust = Trust.for_log(str(store.signer.key))
        proven = await query.Prove(pb.ProveRequest(index=7))
        verified = verify_proof(proven.proof.encode(), proven.record.leaf, trust)
        assert (verified.index, proven.record.leaf) == (7, producer.items[6].leaf)

        old = open_checkpoint((await query.GetCheckpoint(pb.GetCheckpointRequest())).checkpoint,
                              [Verifier(store.signer.key)]).checkpoint  # fmt: skip
        await asyncio.sleep(0.3)
        new = open_checkpoint((await query.GetCheckpoint(pb.GetCheckpointRequest())).checkpoint,
                              [Verifier(store.signer.key)]).checkpoint  # fmt: skip
        assert new.size > old.size
        hashes = (await query.ProveConsistency(pb.ProveConsistencyRequest(old_size=old.size, new_size=new.size))).hashes
        verify_consistency(old.size, new.size, old.root, new.root, list(hashes))

        seen = await query.Search(pb.SearchRequest(type="reviewer_access", person=REVIEWER))
        bodies = b"".join(record.body for record in seen.records)
        for rpc in (b"Search", b"Prove", b"ProveConsistency", b"GetCheckpoint"):
            assert b'"rpc":"%s"' % rpc in bodies
        assert len(seen.records) == 6


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (pb.SearchRequest(limit=1001), grpc.StatusCode.INVALID_ARGUMENT),
        (pb.SearchRequest(cursor="x"), grpc.StatusCode.INVALID_ARGUMENT),
        (pb.SearchRequest(cursor="9" * 30), grpc.StatusCode.INVALID_ARGUMENT),
        (pb.SearchRequest(since="yesterday"), grpc.StatusCode.INVALID_ARGUMENT),
        (pb.SearchRequest(since="2026-11-22T10:00:00"), grpc.StatusCode.INVALID_ARGUMENT),
        (pb.SearchRequest(subject="7"), grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
async def test_a_question_that_makes_no_sense_is_refused(store, request_, code):
    store.start()
    async with asking(store) as query:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await query.Search(request_)
        assert caught.value.code() == code
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await query.Prove(pb.ProveRequest(index=10**6))
        assert caught.value.code() == grpc.StatusCode.NOT_FOUND
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await query.ProveConsistency(pb.ProveConsistencyRequest(old_size=1, new_size=10**6))
        assert caught.value.code() == grpc.StatusCode.OUT_OF_RANGE


async def test_only_reviewers_ask(store):
    producer = Producer()
    identity = store.register(producer)
    store.start()
    async with asking(store, identity) as query:
        for call in (query.Search(pb.SearchRequest()), query.Prove(pb.ProveRequest()),
                     query.GetCheckpoint(pb.GetCheckpointRequest()), query.GetCompleteness(pb.GetCompletenessRequest()),
                     query.ProveConsistency(pb.ProveConsistencyRequest())):  # fmt: skip
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            assert caught.value.code() == grpc.StatusCode.PERMISSION_DENIED


async def period_keys(store, producer, identity):
    async with store.channel("keys", identity) as channel:
        stub = oversight_pb2_grpc.KeyServiceStub(channel)
        sealing = await stub.GetSealingKey(pb.GetSealingKeyRequest())
        return await stub.GetPeriodKeys(pb.GetPeriodKeysRequest(producer=producer.name)), sealing


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


async def test_a_data_subject_is_found_by_id_and_the_question_names_nobody(store):
    producer = Producer()
    identity = store.register(producer)
    store.start()
    keys, _ = await period_keys(store, producer, identity)
    names = [pseudonym(keys.keys[0].key, "user", subject) for subject in ("alice", "bob")]
    producer.record("open")
    producer.record(subjects=[names[0]])
    producer.record(subjects=[names[1]])
    producer.record(subjects=[names[1], names[0]])
    await send(store, producer, identity, (0, 4))
    async with asking(store) as query:
        found = await query.Search(pb.SearchRequest(subject="alice", subject_kind="user", producer=producer.name))
        assert [record.leaf for record in found.records] == [producer.items[1].leaf, producer.items[3].leaf]
        assert (await query.Search(pb.SearchRequest(subject="alice", subject_kind="driver"))).records == []
        # Who looked her up is found the same way, though no body says her name.
        looked = await query.Search(pb.SearchRequest(subject="alice", subject_kind="user", type="reviewer_access"))
        assert len(looked.records) == 1
        everything = await query.Search(pb.SearchRequest(limit=1000))
    bodies = b"".join(record.body for record in everything.records)
    assert b"alice" not in bodies
    assert b"bob" not in bodies


async def test_openings_that_do_not_open_are_a_finding(store):
    producer = Producer()
    identity = store.register(producer)
    store.start()
    producer.record("open")
    producer.items.append(producer.make(1, producer.prev, "decision", None, [b"s" * 32], aad_seq=9))
    await send(store, producer, identity, (0, 2))
    async with asking(store) as query:
        for _ in range(100):
            answer = await query.GetCompleteness(pb.GetCompletenessRequest())
            if answer.findings:
                break
            await asyncio.sleep(0.05)
    assert [(one.kind, one.first_seq) for one in answer.findings] == [("bad_openings", 1)]


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


async def test_searching_by_each_field(store):
    producer = Producer()
    identity = store.register(producer)
    store.start()
    body = (
        b'{"v":1,"call_id":"c","type":"decision","service":"rides.Trips","trace":{"trace_id":"0af7651916cd43dd8448eb211c8'
        b'0319c"},"input":{"subject":{"person":{"id":"amy"}},"resource":{"categories":["id_contact"],"computed":["combined"'
        b']}},"decision":{"effect":"deny","reasons":[{"code":"ticket_missing"}]}}'
    )
    producer.record("open", encode_body(EventBody(type="open", details={})))
    producer.record(
        "decision", body, call_id="01a19467-e800-704d-a788-142cc2b79638", time="2026-11-22T11:00:00.000000Z"
    )
    producer.record(
        "decision", body.replace(b"amy", b"ben").replace(b"deny", b"permit"), time="2026-11-22T12:00:00.000000Z"
    )
    await send(store, producer, identity, (0, 3))
    both, amy, ben = [1, 2], [1], [2]
    cases = [
        ({"person": "amy"}, amy), ({"reason": "ticket_missing"}, both), ({"effect": "deny"}, amy),
        ({"trace": "0af7651916cd43dd8448eb211c80319c"}, both), ({"call_id": "01a19467-e800-704d-a788-142cc2b79638"}, amy),
        ({"service": "rides.Trips"}, both), ({"category": "id_contact"}, both), ({"category": "combined", "person": "ben"}, ben),
        ({"reason": "ticket_missing", "category": "combined", "effect": "permit"}, ben), ({"person": "nobody"}, []),
        ({"reason": "ticket_missing", "trace": "0" * 32}, []), ({"since": "2026-11-22T11:00:00Z", "type": "decision"}, both),
        ({"since": "2026-11-22T11:00:00.000001Z", "producer": producer.name}, ben),
        ({"until": "2026-11-22T12:00:00Z", "type": "decision"}, amy),
        ({"since": "2026-11-22T12:00:00+01:00", "until": "2026-11-22T12:00:00Z", "producer": producer.name}, amy),
        ({"type": "open", "producer": producer.name}, [0]),
    ]  # fmt: skip
    async with asking(store) as query:
        for fields, expected in cases:
            found = await query.Search(pb.SearchRequest(**fields))
            assert [record.leaf for record in found.records] == [producer.items[seq].leaf for seq in expected], fields
