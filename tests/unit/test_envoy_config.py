"""`sidecar envoy-config`: what it writes is safe by itself, and it refuses what the sidecar would not believe."""

from pathlib import Path

import pytest
import yaml
from google.protobuf import descriptor_pb2
from settings_files import changed, written

from sidecar.administration.envoy_config import Bootstrap, Secured, render
from sidecar.api.v1 import annotations_pb2
from sidecar.cli.envoy import Wanted, config
from sidecar.demo.profiles.v1 import profiles_pb2
from sidecar.enforcement.sockets import point_to
from sidecar.errors import ConfigurationError
from sidecar.settings.loader import load
from sidecar.settings.sidecar import SidecarSettings

TLS = Secured(ca=Path("/t/ca.pem"), cert=Path("/t/own.pem"), key=Path("/t/own.key"))
Tree = dict


def made(**changes: object) -> Tree:
    known: dict[str, object] = {
        "mode": "ext_authz", "listen": "0.0.0.0:8443", "listen_tls": TLS, "sidecar": [Path("/run/c/0.sock")],
        "sidecar_tls": None, "upstream": "127.0.0.1:50051", "upstream_tls": None, "streaming": ("a.B/Stream",),
        "unguarded": ("grpc.health.v1.Health/*", "a.B/Open"), "message": 4 << 20, "metadata": 16 << 10, "streams": 1024,
    }  # fmt: skip
    return yaml.safe_load(render(Bootstrap(**{**known, **changes})))  # type: ignore[arg-type]


def manager(tree: Tree) -> Tree:
    return tree["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]


def cluster(tree: Tree, name: str) -> Tree:
    return next(one for one in tree["static_resources"]["clusters"] if one["name"] == name)


@pytest.mark.parametrize("mode", ["ext_authz", "ext_proc"])
def test_nobody_without_a_certificate_gets_in_and_nothing_about_callers_comes_from_them(mode: str) -> None:
    tree = made(mode=mode)
    tls = tree["static_resources"]["listeners"][0]["filter_chains"][0]["transport_socket"]["typed_config"]
    assert tls["require_client_certificate"] is True
    assert tls["common_tls_context"]["validation_context"]["trusted_ca"]["filename"] == "/t/ca.pem"
    found = manager(tree)
    assert (found["forward_client_cert_details"], found["use_remote_address"]) == ("SANITIZE", True)
    assert (found["normalize_path"], found["path_with_escaped_slashes_action"]) == (True, "REJECT_REQUEST")
    mutations = found["early_header_mutation_extensions"][0]["typed_config"]["mutations"]
    assert {"remove": "x-customhouse-person"} in mutations
    assert "admin" not in tree


@pytest.mark.parametrize("mode", ["ext_authz", "ext_proc"])
def test_a_dead_sidecar_lets_nothing_pass(mode: str) -> None:
    asks = manager(made(mode=mode))["http_filters"][-2]["typed_config"]
    assert asks["failure_mode_allow"] is False
    assert asks["status_on_error"] == {"code": "ServiceUnavailable"}


def test_bodies_are_held_back_only_where_they_can_be() -> None:
    tree = made(message=1000)
    asks = manager(tree)["http_filters"][0]["typed_config"]
    assert asks["with_request_body"] == {
        "max_request_bytes": 1005,
        "allow_partial_message": False,
        "pack_as_bytes": True,
    }
    routes = manager(tree)["route_config"]["virtual_hosts"][0]["routes"]
    own = {
        str(one["match"]): one.get("typed_per_filter_config", {}).get("envoy.filters.http.ext_authz", {})
        for one in routes
    }
    assert own["{'path': '/a.B/Stream'}"]["check_settings"] == {"disable_request_body_buffering": True}
    assert own["{'prefix': '/grpc.health.v1.Health/'}"]["disabled"] is True
    assert own["{'path': '/a.B/Open'}"]["disabled"] is True
    assert own["{'prefix': '/'}"] == {}, "everything else is asked about, with its body"
    assert routes[-1]["match"] == {"prefix": "/"}


def test_nothing_is_exempt_from_processing() -> None:
    found = manager(made(mode="ext_proc"))
    assert [one["match"] for one in found["route_config"]["virtual_hosts"][0]["routes"]] == [{"prefix": "/"}]
    modes = found["http_filters"][1]["typed_config"]["processing_mode"]
    assert modes["request_body_mode"] == modes["response_body_mode"] == "FULL_DUPLEX_STREAMED"
    assert {value for key, value in modes.items() if not key.endswith("body_mode")} == {"SEND"}
    assert found["codec_type"] == "HTTP2"


def test_the_sidecar_is_reached_by_all_its_sockets_or_by_mutual_tls() -> None:
    paths = [Path("/run/c/0.sock"), Path("/run/c/1.sock")]
    ends = cluster(made(sidecar=paths), "customhouse")["load_assignment"]["endpoints"][0]["lb_endpoints"]
    assert [one["endpoint"]["address"]["pipe"]["path"] for one in ends] == ["/run/c/0.sock", "/run/c/1.sock"]
    door = cluster(made(sidecar="sidecar.corp:9443", sidecar_tls=TLS), "customhouse")
    tls = door["transport_socket"]["typed_config"]
    assert (door["type"], tls["sni"]) == ("STRICT_DNS", "sidecar.corp")
    assert tls["common_tls_context"]["tls_certificates"][0]["certificate_chain"]["filename"] == "/t/own.pem"


@pytest.mark.parametrize(
    ("upstream", "kind", "san"),
    [("svc.corp:1", "STRICT_DNS", {"san_type": "DNS", "matcher": {"exact": "svc.corp"}}),
     ("[2001:db8::1]:1", "STATIC", {"san_type": "IP_ADDRESS", "matcher": {"exact": "2001:db8::1"}})],
)  # fmt: skip
def test_the_service_is_spoken_to_in_http2_and_checked_by_name(upstream: str, kind: str, san: Tree) -> None:
    found = cluster(made(upstream=upstream, upstream_tls=TLS), "guarded_service")
    assert found["type"] == kind
    context = found["transport_socket"]["typed_config"]["common_tls_context"]["validation_context"]
    assert context["match_typed_subject_alt_names"] == [san]
    options = next(iter(found["typed_extension_protocol_options"].values()))
    assert "http2_protocol_options" in options["explicit_http_config"]


def test_a_service_on_a_socket_needs_no_names() -> None:
    found = cluster(made(upstream="unix:/run/svc.sock"), "guarded_service")
    assert found["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"] == {
        "pipe": {"path": "/run/svc.sock"}
    }
    assert "transport_socket" not in found


def test_odd_paths_stay_text() -> None:
    odd = Path('/t/a "b": {c}\n- d.pem')
    tree = made(listen_tls=Secured(ca=odd, cert=odd, key=odd))
    context = tree["static_resources"]["listeners"][0]["filter_chains"][0]["transport_socket"]["typed_config"][
        "common_tls_context"
    ]
    assert context["tls_certificates"][0]["private_key"]["filename"] == str(odd)


ENVOY = {"id": "spiffe://t/envoy", "operated_from": "US", "relays": True}
SOCKET = {"door": "ext_proc", "address": "unix:/run/c/envoy", "workload": "spiffe://t/envoy"}
TCP = {
    "door": "ext_proc",
    "address": "sidecar.corp:9443",
    "tls": {"cert": "a.pem", "key": "a.key", "client_ca": "ca.pem"},
}


def command(folder: Path, doors: list[Tree], workloads: list[Tree], **given: object) -> str:
    """What the command writes for settings that are complete but for the API's description."""
    api = descriptor_pb2.FileDescriptorSet()
    for source in (descriptor_pb2.DESCRIPTOR, annotations_pb2.DESCRIPTOR, profiles_pb2.DESCRIPTOR):
        source.CopyToProto(api.file.add())
    (folder / "profiles.binpb").write_bytes(api.SerializeToString())
    tree = yaml.safe_load(changed("listen", doors))
    tree["identity"]["workloads"] = workloads
    tree["describe"], tree["workers"] = {"descriptors": {"file": "profiles.binpb"}}, 2
    tree.pop("datasets", None)
    settings = load(written(folder, yaml.safe_dump(tree)), SidecarSettings, {})
    own = {"cert": folder / "e.pem", "key": folder / "e.key", "client_ca": folder / "ca.pem"}
    return config(settings, Wanted(**{"mode": "ext_proc", "listen": "0.0.0.0:8443", **own, **given}))  # type: ignore[arg-type]


def test_the_command_names_what_leads_to_each_worker_s_newest_socket(tmp_path: Path) -> None:
    """A reload gives the sockets other names; a bootstrap that had theirs would find nobody from then on."""
    folder = tmp_path / "envoy"
    tree = yaml.safe_load(command(tmp_path, [{**SOCKET, "address": f"unix:{folder}"}], [ENVOY]))
    ends = cluster(tree, "customhouse")["load_assignment"]["endpoints"][0]["lb_endpoints"]
    named = [Path(one["endpoint"]["address"]["pipe"]["path"]) for one in ends]
    assert len(named) == 2
    folder.mkdir()
    for generation in ("{}.sock", "{}-1.sock"):
        for worker in range(2):
            point_to(folder / generation.format(worker), worker)
        assert [one.readlink() for one in named] == [Path(generation.format(worker)) for worker in range(2)]
    assert cluster(tree, "guarded_service")["transport_socket"]


@pytest.mark.parametrize(
    ("doors", "workloads", "given", "says"),
    [
        ([TCP], [ENVOY], {"mode": "ext_authz"}, "no listener has the door ext_authz"),
        ([SOCKET], [{**ENVOY, "relays": False}], {}, "would not believe this Envoy"),
        ([SOCKET], [], {}, "would not believe this Envoy"),
        ([TCP], [ENVOY], {}, "the door asks Envoy for a certificate"),
        (
            [TCP],
            [ENVOY],
            {"identity": Path("none.pem"), "identity_key": Path("n"), "sidecar_ca": Path("n")},
            "cannot be read",
        ),
        (
            [TCP],
            [ENVOY],
            {"identity": Path(__file__), "identity_key": Path("n"), "sidecar_ca": Path("n")},
            "no certificate",
        ),
        ([SOCKET], [ENVOY], {"cert": None}, "has no certificate, or does not ask"),
        ([SOCKET], [ENVOY], {"listen": "8443"}, "is not an address"),
    ],
    ids=[
        "no door",
        "not believed",
        "not registered",
        "no identity",
        "not there",
        "no certificate",
        "no tls",
        "no address",
    ],
)
def test_the_command_refuses_what_would_not_work(
    tmp_path: Path, doors: list[Tree], workloads: list[Tree], given: Tree, says: str
) -> None:
    with pytest.raises(ConfigurationError, match=says):
        command(tmp_path, doors, workloads, **given)
