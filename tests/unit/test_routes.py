"""HTTP requests as calls: everything the service would see was read, or the request is refused."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pipeline_rig import describer

from sidecar.attributes import entities
from sidecar.attributes.entities import Route
from sidecar.attributes.resource import Describer
from sidecar.attributes.routes import Routes
from sidecar.demo.profiles.v1 import profiles_pb2 as pb
from sidecar.errors import Code, ConfigurationError, InterceptError

SERVICE = "sidecar.demo.profiles.v1.Profiles"
GET = Route(http="GET /v1/profiles/{user_id}", rpc=f"{SERVICE}/GetProfile")
LIST = Route(http="POST /v1/profiles", rpc=f"{SERVICE}/ListProfiles")


@pytest.fixture(scope="module")
def api() -> Describer:
    return describer()


@pytest.fixture(scope="module")
def routes(api: Describer) -> Routes:
    return Routes([GET, LIST, Route(http="GET /v1/profiles/me", rpc=f"{SERVICE}/ListProfiles")], api, "r.yaml")


class TestRequests:
    def test_path_query_and_body_fill_the_message(self, routes: Routes) -> None:
        asked = routes.match("GET", "/v1/profiles/7?country=DE", b"")
        assert asked.method == f"/{SERVICE}/GetProfile"
        assert pb.GetProfileRequest.FromString(asked.message) == pb.GetProfileRequest(user_id=7, country="DE")
        body = json.dumps({"pageSize": 3, "page_token": "4"}).encode()
        asked = routes.match("POST", "/v1/profiles", body)
        assert pb.ListProfilesRequest.FromString(asked.message) == pb.ListProfilesRequest(page_size=3, page_token="4")

    def test_the_route_that_says_more_is_meant(self, routes: Routes) -> None:
        assert routes.match("GET", "/v1/profiles/me", b"").method.endswith("/ListProfiles")

    def test_percent_encoding_is_undone_within_a_segment(self, routes: Routes) -> None:
        assert (
            routes.match("GET", "/v1/profiles/%37", b"").message == routes.match("GET", "/v1/profiles/7", b"").message
        )

    @pytest.mark.parametrize(
        "target", ["/v1/profiles", "/v1/profiles/", "/v1//profiles/7", "/v1/./profiles/7", "/v1/profiles/../7", "v1/profiles/7",
                   "/v1/profiles/7/8", "/v1/profiles/%2e%2e", "/v1/profiles%2f7", "/v1/profiles/a%2fb", "/v1/profiles/%ff",
                   "/" * 100, "", "*"],
    )  # fmt: skip
    def test_no_other_path_is_a_route(self, routes: Routes, target: str) -> None:
        with pytest.raises(InterceptError) as refused:
            routes.match("GET", target, b"")
        assert refused.value.code in (Code.UNIMPLEMENTED, Code.INVALID_ARGUMENT)

    @pytest.mark.parametrize(
        ("verb", "target", "body"),
        [
            ("GET", "/v1/profiles/7?who=8", b""),
            ("GET", "/v1/profiles/7?user_id=8", b""),
            ("GET", "/v1/profiles/7?userId=8", b""),
            ("GET", "/v1/profiles/7?country=DE&country=US", b""),
            ("GET", "/v1/profiles/7?country=DE&&", b""),
            ("GET", "/v1/profiles/7", b"{}"),
            ("GET", "/v1/profiles/seven", b""),
            ("POST", "/v1/profiles", b"[]"),
            ("POST", "/v1/profiles", b"{"),
            ("POST", "/v1/profiles", b'{"pageSize":1,"pageSize":2}'),
            ("POST", "/v1/profiles", b'{"pageSize":1,"page_size":2}'),
            ("POST", "/v1/profiles?page_size=1", b'{"pageSize":2}'),
            ("POST", "/v1/profiles", b'{"other":1}'),
            ("POST", "/v1/profiles", b"\xff"),
            ("POST", "/v1/profiles", b"[" * 100_000),
        ],
    )
    def test_what_the_message_does_not_have_is_refused(
        self, routes: Routes, verb: str, target: str, body: bytes
    ) -> None:
        with pytest.raises(InterceptError) as refused:
            routes.match(verb, target, body)
        assert refused.value.code is Code.INVALID_ARGUMENT

    @given(st.binary(max_size=60), st.text(max_size=40))
    def test_garbage_is_a_message_or_a_refusal(self, routes: Routes, body: bytes, query: str) -> None:
        for verb, path in (("GET", "/v1/profiles/7"), ("POST", "/v1/profiles")):
            try:
                routes.match(verb, f"{path}?{query}", body)
            except InterceptError:
                continue


class TestAnswers:
    def route(self, routes: Routes):
        return routes.find("GET", "/v1/profiles/7")[0]

    def test_an_answer_that_lost_nothing_keeps_its_bytes(self, routes: Routes) -> None:
        body = b'{ "user_id": 7,  "email":"a@b.example" }'
        route = self.route(routes)
        assert route.shown(body, route.answer(body)) is body

    def test_what_was_withheld_is_gone_and_the_rest_is_as_written(self, routes: Routes) -> None:
        body = json.dumps({"user_id": 7, "email": "a@b.example", "display_name": "A", "last_payment": {"amount": "9"}})
        left = pb.Profile(user_id=7, email="****mple", display_name="A", last_payment=pb.Payment())
        shown = json.loads(self.route(routes).shown(body.encode(), left.SerializeToString()))
        assert shown == {"user_id": 7, "email": "****mple", "display_name": "A", "last_payment": {}}

    def test_records_of_a_list_that_were_dropped_are_gone(self, routes: Routes) -> None:
        route = routes.find("POST", "/v1/profiles")[0]
        body = json.dumps({"profiles": [{"user_id": 1, "email": "x"}, {"user_id": 2}], "next_page_token": "2"}).encode()
        left = pb.ListProfilesResponse(profiles=[pb.Profile(user_id=2)], next_page_token="2")
        shown = json.loads(route.shown(body, left.SerializeToString()))
        assert shown == {"profiles": [{"userId": "2"}], "next_page_token": "2"}

    @pytest.mark.parametrize(
        "body", [b"", b"[]", b'{"secret":1}', b'{"email":"a","email":"b"}', b'{"userId":7,"user_id":8}', b'{"email":1e999}'],
    )  # fmt: skip
    def test_what_cannot_be_read_cannot_be_filtered(self, routes: Routes, body: bytes) -> None:
        with pytest.raises(InterceptError):
            self.route(routes).answer(body)

    @given(st.dictionaries(st.sampled_from(["user_id", "userId", "email", "handle", "city"]),
                           st.one_of(st.integers(0, 9), st.text(max_size=3), st.none()), max_size=5))  # fmt: skip
    def test_nothing_that_was_withheld_is_shown(self, routes: Routes, tree: dict[str, object]) -> None:
        route, body = self.route(routes), json.dumps(tree).encode()
        try:
            answer = pb.Profile.FromString(route.answer(body))
        except InterceptError:
            return
        answer.ClearField("email")
        answer.ClearField("handle")
        data = answer.SerializeToString()
        assert route.answer(route.shown(body, data)) == data


class TestFile:
    @pytest.mark.parametrize(
        ("http", "rpc", "word"),
        [
            ("FETCH /v1", f"{SERVICE}/GetProfile", "HTTP method"),
            ("GET v1", f"{SERVICE}/GetProfile", "HTTP method"),
            ("GET /v1/{nobody}", f"{SERVICE}/GetProfile", "no such field"),
            ("GET /v1/{user_id}x", f"{SERVICE}/GetProfile", "segment"),
            ("GET /v1//x", f"{SERVICE}/GetProfile", "segment"),
            ("GET /v1/{user_id.more}", f"{SERVICE}/GetProfile", "no single message"),
            ("GET /v1", f"{SERVICE}/Sync", "streaming"),
            ("GET /v1", f"{SERVICE}/Nothing", "not in"),
        ],
    )
    def test_a_route_that_cannot_be_is_refused_by_name(self, api: Describer, http: str, rpc: str, word: str) -> None:
        with pytest.raises(ConfigurationError) as refused:
            Routes([Route(http=http, rpc=rpc)], api, "r.yaml")
        assert word in str(refused.value) and "r.yaml: routes.0" in str(refused.value)

    def test_two_routes_of_one_shape_are_refused(self, api: Describer) -> None:
        with pytest.raises(ConfigurationError, match="one shape"):
            Routes([GET, Route(http="GET /v1/profiles/{country}", rpc=GET.rpc)], api, "r.yaml")

    def test_the_file_is_read_strictly(self) -> None:
        found = entities.parse(f'routes:\n- {{http: "{GET.http}", rpc: {GET.rpc}}}\n', "r.yaml")
        assert found.routes == (GET,)
        with pytest.raises(ConfigurationError, match="unknown key"):
            entities.parse('routes:\n- {http: "GET /", rpc: a/B, more: 1}\n', "r.yaml")
