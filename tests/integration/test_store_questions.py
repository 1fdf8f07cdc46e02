"""What reviewers may ask a store that runs as a process, what it answers, and what is recorded of their asking."""

import asyncio

import grpc
import pytest
from store_rig import REVIEWER, Producer, StoreProcess, asking, period_keys, send

from sidecar.api.v1 import oversight_pb2 as pb
from sidecar.record import EventBody, encode_body, pseudonym
from sidecar.tlog.checkpoint import open_checkpoint
from sidecar.tlog.key import Verifier
from sidecar.tlog.merkle import verify_consistency
from sidecar.tlog.proof import verify_proof
from sidecar.tlog.trust import Trust

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]


@pytest.fixture
def store(tmp_path):
    with StoreProcess(tmp_path) as store:
        yield store


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
        new, asked = old, 1
        async with asyncio.timeout(60):
            while new.size == old.size:  # until the records of these questions are in a checkpoint
                new = open_checkpoint((await query.GetCheckpoint(pb.GetCheckpointRequest())).checkpoint,
                                      [Verifier(store.signer.key)]).checkpoint  # fmt: skip
                asked += 1
                await asyncio.sleep(0.05)
        hashes = (await query.ProveConsistency(pb.ProveConsistencyRequest(old_size=old.size, new_size=new.size))).hashes
        verify_consistency(old.size, new.size, old.root, new.root, list(hashes))

        seen = await query.Search(pb.SearchRequest(type="reviewer_access", person=REVIEWER))
        bodies = b"".join(record.body for record in seen.records)
        for rpc in (b"Search", b"Prove", b"ProveConsistency", b"GetCheckpoint"):
            assert b'"rpc":"%s"' % rpc in bodies
        assert len(seen.records) == 4 + asked


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
        for _ in range(1000):
            answer = await query.GetCompleteness(pb.GetCompletenessRequest())
            if answer.findings:
                break
            await asyncio.sleep(0.05)
    assert [(one.kind, one.first_seq) for one in answer.findings] == [("bad_openings", 1)]


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
