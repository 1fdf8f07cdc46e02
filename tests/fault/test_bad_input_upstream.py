"""A guarded service that cannot be reached, does not keep to its descriptors, or says more than it should."""

from collections.abc import Iterator

import grpc
import pytest
from deployment import SOON, Answer, Deployment, wait
from minimal_policy import write_policy

from sidecar.demo.processes import free_port
from sidecar.demo.profiles.v1 import profiles_pb2 as pb

SECRET = "jo.jones@mail.example"


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with Deployment(tmp_path_factory.mktemp("upstream")) as deployment:
        yield deployment
        for name in ("sidecar", "store"):
            text = deployment.log(name)
            assert "Traceback" not in text
            assert SECRET not in text


def get(deployment: Deployment, user: int | None = None, **more: object) -> Answer:
    return deployment.call("GetProfile", pb.GetProfileRequest(user_id=user or deployment.world.cast.us), **more)  # type: ignore[arg-type]


def saying(*answers: bytes):
    """A service that answers each call with these messages."""

    def behave(seen, requests, context):
        next(requests)
        yield from answers

    return behave


def varint(number: int, value: bytes) -> bytes:
    """A length-delimited field of this number."""
    return bytes([(number << 3 | 2) & 0x7F | 0x80, number >> 4]) + bytes([len(value)]) + value


def test_a_service_that_is_not_there(deployed: Deployment) -> None:
    with deployed.variant(upstream__address=f"localhost:{free_port()}"):
        answer = get(deployed, port="abroad")
        stream = deployed.call("Sync", pb.SyncRequest(user_id=deployed.world.cast.us), port="abroad")
        wait(lambda: deployed.status("variant.yaml")["open_calls"] == 0, SOON, "no call is open")
    for one in (answer, stream):
        assert (one.status, one.retry) == ("UNAVAILABLE", True), one
        assert "127.0.0.1" not in one.text, "callers are not told addresses"
        recorded = deployed.recorded(one.call_id)
        assert recorded.status == "UNAVAILABLE"
        assert set(recorded.effects) == {"permit"}, "it was permitted, and came to nothing"
        assert recorded.outcomes[0]["released"]["us"]["records"] == 0


def test_a_service_that_comes_later_is_found_without_a_restart(deployed: Deployment) -> None:
    port, spare = free_port(), deployed.world.ports["upstream"]
    with deployed.variant(upstream__address=f"localhost:{port}"):
        assert get(deployed, port="abroad").status == "UNAVAILABLE"
        deployed.world.ports["upstream"] = port
        try:
            late = type(deployed.upstream)(deployed.world)
        finally:
            deployed.world.ports["upstream"] = spare
        try:
            wait(lambda: get(deployed, port="abroad").status == "OK", SOON, "the service is found")
        finally:
            late.stop()


@pytest.mark.parametrize("data", [b"\xff\xff\xff", b"\x12\x02\xff\xfe", b"\x08"], ids=repr)
def test_an_answer_that_does_not_match_its_descriptor_never_leaves(deployed: Deployment, data: bytes) -> None:
    for method in ("GetProfile", "ListProfiles", "ListMessages"):
        with deployed.upstream.behaving(method, saying(data)):
            answer = deployed.call(method, pb.GetProfileRequest(user_id=deployed.world.cast.us))
        if (method, data) == ("ListMessages", b"\x12\x02\xff\xfe"):
            continue  # another wire type than the field's: an unknown field, which the next test is about
        assert answer.said == "PERMISSION_DENIED obligation_unfulfillable", method
        assert not any(answer.messages)
        recorded = deployed.recorded(answer.call_id)
        assert (recorded.status, recorded.effects[0], recorded.effects[-1]) == ("PERMISSION_DENIED", "permit", "deny")
    assert "does not match its descriptor" in deployed.log("sidecar"), "the operator is told"


def test_fields_that_nobody_described_do_not_leave(deployed: Deployment) -> None:
    cast = deployed.world.cast
    hidden = varint(19, SECRET.encode())
    profile = pb.Profile(user_id=cast.us, handle="kept", last_payment=pb.Payment(amount="1")).SerializeToString()
    nested = pb.Profile(user_id=cast.us, handle="kept").SerializeToString()
    nested += bytes([12 << 3 | 2, len(hidden)]) + hidden
    for data in (profile + hidden, hidden + profile, nested):
        assert SECRET.encode() in data
        with deployed.upstream.behaving("GetProfile", saying(data)):
            answer = get(deployed)
        assert answer.status == "OK", answer.said
        assert SECRET.encode() not in answer.messages[0]
        assert pb.Profile.FromString(answer.messages[0]).handle == "kept"
        assert sum(deployed.recorded(answer.call_id).outcomes[0]["redacted"].values()) > 0
    page = pb.ListProfilesResponse(profiles=[pb.Profile.FromString(profile)]).SerializeToString()
    with deployed.upstream.behaving("ListProfiles", saying(page + hidden)):
        answer = deployed.call("ListProfiles", pb.ListProfilesRequest(page_size=1))
    assert (answer.status, SECRET.encode() in answer.messages[0]) == ("OK", False)


def test_fields_that_nobody_described_do_not_leave_under_a_permit_without_obligations(
    deployed: Deployment, tmp_path_factory: pytest.TempPathFactory
) -> None:
    policy = write_policy(tmp_path_factory.mktemp("free"))
    data = pb.Profile(user_id=1, government_id="900-00-0001", handle="kept").SerializeToString()
    with deployed.variant(policy__bundle__folder=str(policy)):
        with deployed.upstream.behaving("GetProfile", saying(data + varint(19, SECRET.encode()))):
            filtered = get(deployed, port="abroad")
        with deployed.upstream.behaving("GetProfile", saying(data)):
            whole = get(deployed, port="abroad")
    assert (filtered.status, SECRET.encode() in filtered.messages[0]) == ("OK", False)
    assert whole.messages == [data], "what needs no change leaves byte for byte"


def test_fields_that_nobody_described_do_not_reach_the_service_either(deployed: Deployment) -> None:
    request = pb.GetProfileRequest(user_id=deployed.world.cast.us).SerializeToString() + varint(19, b"smuggled")
    answer = deployed.call("GetProfile", request)
    assert answer.status == "OK"
    assert b"smuggled" not in deployed.upstream.calls_of(answer.call_id)[0].requests[0]


def test_a_field_given_twice_is_read_by_the_service_as_the_sidecar_read_it(deployed: Deployment) -> None:
    """Last one wins: the US user is decided about, and the service gets one id only."""
    cast = deployed.world.cast
    twice = b"".join(pb.GetProfileRequest(user_id=user).SerializeToString() for user in (cast.german, cast.us))
    assert deployed.call("GetProfile", twice, token="niall").said == "PERMISSION_DENIED not_us_personnel"
    answer = deployed.call(
        "GetProfile", b"".join((twice, pb.GetProfileRequest(user_id=cast.german).SerializeToString())), token="niall"
    )
    assert answer.status == "OK"
    seen = deployed.upstream.calls_of(answer.call_id)[0].requests[0]
    assert seen == pb.GetProfileRequest(user_id=cast.german).SerializeToString()


def test_an_answer_about_somebody_else_is_decided_again(deployed: Deployment) -> None:
    """The service answers with a US user's profile, whatever country it writes in."""
    cast = deployed.world.cast
    for country in ("DE", "US", ""):
        data = pb.Profile(user_id=cast.us, country=country, email=SECRET).SerializeToString()
        with deployed.upstream.behaving("GetProfile", saying(data)):
            answer = get(deployed, cast.german, token="niall")
        assert answer.said == "PERMISSION_DENIED not_us_personnel", country
        assert not any(answer.messages)
        recorded = deployed.recorded(answer.call_id)
        assert [(one["phase"], one["decision"]["effect"]) for one in recorded.decisions] == [
            ("request", "permit"),
            ("response", "deny"),
        ]


def test_a_country_in_an_answer_only_makes_things_more_sensitive(deployed: Deployment) -> None:
    cast = deployed.world.cast
    for user, country, reason in (
        (cast.german, "US", "not_us_personnel"),
        (cast.german, "DE", ""),
        (cast.us, "DE", "not_us_personnel"),
        (cast.unlisted, "DE", "subjects_unknown"),
    ):
        data = pb.Profile(user_id=user, country=country, handle="h").SerializeToString()
        with deployed.upstream.behaving("GetProfile", saying(data)):
            answer = get(deployed, cast.german, token="niall")
        assert answer.status == ("PERMISSION_DENIED" if reason else "OK"), (user, country)
        assert reason in answer.info.get("reasons", "").split(","), (user, country)


def test_an_answer_that_names_nobody_is_nobodys_and_counts_as_us(deployed: Deployment) -> None:
    data = pb.Profile(handle="who", email=SECRET, city="Columbus").SerializeToString()
    with deployed.upstream.behaving("GetProfile", saying(data)):
        answer = get(deployed, deployed.world.cast.german, token="niall")
    assert answer.status == "PERMISSION_DENIED", answer.said
    assert not any(answer.messages)


def test_an_answer_without_end_is_cut_at_the_limit(deployed: Deployment) -> None:
    huge = pb.Profile(user_id=deployed.world.cast.us, handle="x" * (5 << 20)).SerializeToString()
    with deployed.upstream.behaving("GetProfile", saying(huge)):
        answer = get(deployed)
    assert answer.status == "RESOURCE_EXHAUSTED"
    assert deployed.recorded(answer.call_id).status == "RESOURCE_EXHAUSTED"


@pytest.mark.parametrize(
    "code", [one for one in grpc.StatusCode if one is not grpc.StatusCode.OK], ids=lambda one: one.name
)
def test_the_services_status_passes_and_its_words_do_not(deployed: Deployment, code: grpc.StatusCode) -> None:
    """Amy's permit withholds fields, so nothing of the service's own words, headers or trailers may pass."""

    def failing(seen, requests, context):
        context.send_initial_metadata([("x-said", SECRET), ("x-customhouse-call-id", "forged")])
        context.set_trailing_metadata([("x-user", SECRET), ("grpc-status-details-bin", SECRET.encode())])
        context.abort(code, f"no such user: {SECRET}")
        yield b""

    with deployed.upstream.behaving("GetProfile", failing):
        answer = get(deployed)
    assert answer.status == code.name
    everything = repr((answer.text, answer.headers, answer.trailers))
    assert SECRET not in everything
    assert "forged" not in everything
    assert "x-said" not in everything
    assert deployed.recorded(answer.call_id).status == code.name


def test_a_free_permit_lets_the_services_words_pass_but_not_in_the_sidecars_name(
    deployed: Deployment, tmp_path_factory: pytest.TempPathFactory
) -> None:
    def talking(seen, requests, context):
        context.send_initial_metadata(
            [("x-said", "hello"), ("x-customhouse-call-id", "forged"), ("x-customhouse-person", "root")]
        )
        context.set_trailing_metadata([("x-after", "bye"), ("x-customhouse-anything", "forged")])
        yield pb.Profile(user_id=1).SerializeToString()

    policy = write_policy(tmp_path_factory.mktemp("free"))
    with deployed.variant(policy__bundle__folder=str(policy)), deployed.upstream.behaving("GetProfile", talking):
        answer = get(deployed, port="abroad")
    assert answer.status == "OK"
    assert ("x-said", "hello") in answer.headers
    assert ("x-after", "bye") in answer.trailers
    assert "forged" not in repr((answer.headers, answer.trailers))
    assert "root" not in repr(answer.headers)
    assert answer.call_id == deployed.upstream.seen[-1].call_id


def test_the_service_lets_nobody_in_but_the_sidecar(deployed: Deployment) -> None:
    before = len(deployed.upstream.seen)
    for certificate in ("console", "proxy"):  # not even the sidecar's other certificate
        answer = get(deployed, certificate=certificate, port="upstream")
        deployed.caller(certificate, "upstream").close()  # or it would try again and again
        assert answer.status == "UNAVAILABLE"
    assert len(deployed.upstream.seen) == before
    lines = deployed.stage.doctor().stdout.splitlines()
    assert sum(line.startswith("ok   upstream refuses ") for line in lines) == 2
    # This deployment has no ledger, which the doctor says as well.
    assert [line.split()[1] for line in lines if line.startswith("FAIL")] in ([], ["ledger:"])
