"""Which listeners may be opened, where sockets go, how certificates are checked and peers are known."""

import os
import socket
import time

import pytest
from proxy_parts import Authority, Remembering

from sidecar.enforcement.certificates import ReloadingCertificate, ServerTls
from sidecar.enforcement.listen import Listen
from sidecar.enforcement.peer import CertificatePeer, NamedPeer, UnverifiedPeer, address
from sidecar.enforcement.sockets import free_path, is_loopback, prepare_directory
from sidecar.enforcement.transport import UPSTREAM_KEEPALIVE_MS, Limits
from sidecar.errors import ConfigurationError

pytestmark = pytest.mark.unit
WEB = "spiffe://corp/ns/web"


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path, "corp")


@pytest.fixture
def mutual(authority):
    cert, key = authority.issue("sidecar", dns=["localhost"])
    return ServerTls(cert=cert, key=key, client_ca=authority.ca)


@pytest.fixture
def one_sided(mutual):
    return ServerTls(cert=mutual.cert, key=mutual.key)


@pytest.mark.parametrize("where", ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "corp.example:1", "[fe80::1]:1"])
def test_plaintext_beyond_this_host_is_refused_even_on_request(where):
    with pytest.raises(ConfigurationError, match="in the clear"):
        Listen(address=where, plaintext=True).check()


@pytest.mark.parametrize("where", ["127.0.0.1:1", "[::1]:1", "localhost:1", "127.9.9.9:0"])
def test_plaintext_on_loopback_needs_to_be_asked_for(where):
    Listen(address=where, plaintext=True).check()
    with pytest.raises(ConfigurationError, match="in the clear"):
        Listen(address=where).check()


@pytest.mark.parametrize("where", ["", "127.0.0.1", ":1", "127.0.0.1:", "127.0.0.1:x", "h:65536", "h:-1", "h:٣"])
def test_what_is_no_address_is_refused(where):
    with pytest.raises(ConfigurationError, match="not an address"):
        is_loopback(where)


def test_a_socket_says_in_one_way_who_may_use_it(mutual, one_sided):
    Listen(address="unix:/x", workload=WEB).check()
    Listen(address="unix:/x", workload=WEB, tls=one_sided).check()
    Listen(address="unix:/x", tls=mutual).check()
    for wrong in ({}, {"tls": one_sided}, {"plaintext": True}, {"workload": WEB, "tls": mutual}):
        with pytest.raises(ConfigurationError, match="who calls"):
            Listen(address="unix:/x", **wrong).check()


def test_a_tcp_port_cannot_stand_for_a_workload(mutual):
    for more in ({"tls": mutual}, {"plaintext": True}):
        with pytest.raises(ConfigurationError, match="anybody can open it"):
            Listen(address="127.0.0.1:1", workload=WEB, **more).check()


def test_peers_are_read_as_the_listener_can_know_them(mutual, one_sided):
    assert isinstance(Listen(address="h:1", tls=mutual).peers(time.time), CertificatePeer)
    assert isinstance(Listen(address="unix:/x", tls=mutual).peers(time.time), CertificatePeer)
    assert isinstance(Listen(address="h:1", tls=one_sided).peers(time.time), UnverifiedPeer)
    assert isinstance(Listen(address="unix:/x", tls=one_sided, workload=WEB).peers(time.time), NamedPeer)


class Transport:
    def __init__(self, peer, **auth):
        self._peer, self._auth = peer, auth

    def peer(self):
        return self._peer

    def auth_context(self):
        return self._auth


@pytest.mark.parametrize(("raw", "said"), [
    ("ipv4:127.0.0.1:5", "127.0.0.1:5"), ("ipv6:%5B::1%5D:5", "[::1]:5"), ("unix:", "unix"), ("unix:/a/b", "unix"),
])  # fmt: skip
def test_addresses_read_as_people_write_them(raw, said):
    assert address(raw) == said


def test_a_certificate_is_believed_until_it_expires(authority):
    cert, _ = authority.issue("web", uris=[WEB])
    now = [time.time()]
    reader = CertificatePeer(lambda: now[0])
    transport = Transport("ipv4:10.0.0.1:5", x509_pem_cert=[cert.read_bytes()])
    peer = reader.of(transport)
    assert (peer.identities, len(peer.certificate_sha256), peer.address) == ((WEB,), 32, "10.0.0.1:5")
    now[0] += 3601
    assert reader.of(transport).identities == ()


@pytest.mark.parametrize("found", [[], [b""], [b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]])
def test_no_certificate_or_none_that_can_be_read_is_nobody(found):
    peer = CertificatePeer(time.time).of(Transport("ipv4:10.0.0.1:5", x509_pem_cert=found))
    assert (peer.identities, peer.certificate_sha256) == ((), None)
    assert CertificatePeer(time.time).of(Transport("unix:")).identities == ()


def test_others_are_known_by_name_or_not_at_all(authority):
    cert, _ = authority.issue("web", uris=[WEB])
    shown = Transport("ipv4:10.0.0.1:5", x509_pem_cert=[cert.read_bytes()])
    assert UnverifiedPeer().of(shown).identities == ()
    assert NamedPeer("other").of(shown).identities == ("other",)


# -- sockets --------------------------------------------------------------------------------------------------------


def listening(path):
    one = socket.socket(socket.AF_UNIX)
    one.bind(str(path))
    one.listen(1)
    return one


def test_each_worker_and_generation_has_a_path_of_its_own(tmp_path):
    folder = tmp_path / "s"
    with free_path(folder, 0) as first:
        assert first == folder / "0.sock"
        held = listening(first)
    with free_path(folder, 1) as other:
        assert other == folder / "1.sock"
    with free_path(folder, 0) as second:
        assert second == folder / "0-1.sock"
        later = listening(second)
    held.close()
    with free_path(folder, 0) as third:
        assert third == folder / "0.sock"
        assert not third.exists()
    later.close()


def test_a_full_backlog_still_counts_as_listening(tmp_path):
    folder = tmp_path / "s"
    with free_path(folder, 0) as path:
        held = listening(path)
    waiting = [socket.socket(socket.AF_UNIX) for _ in range(4)]
    for one in waiting:
        one.setblocking(False)
        one.connect_ex(str(path))
    with free_path(folder, 0) as second:
        assert second == folder / "0-1.sock"
    for one in (held, *waiting):
        one.close()


def test_a_directory_that_others_could_put_a_socket_into_is_refused(tmp_path):
    for mode in (0o770, 0o757, 0o777):
        folder = tmp_path / oct(mode)
        folder.mkdir()
        folder.chmod(mode)
        with pytest.raises(ConfigurationError, match="written to by others"):
            prepare_directory(folder)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError):
        prepare_directory(tmp_path / "file")
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(ConfigurationError, match="not a directory"):
        prepare_directory(tmp_path / "link")
    with pytest.raises(ConfigurationError, match="cannot be used"):
        prepare_directory(tmp_path / "no" / "parent")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make another user's directory")
def test_another_users_directory_is_refused(tmp_path):
    (tmp_path / "s").mkdir(mode=0o750)
    os.chown(tmp_path / "s", 12345, 12345)
    with pytest.raises(ConfigurationError, match="another user"):
        prepare_directory(tmp_path / "s")


def test_a_path_too_long_for_a_socket_is_refused(tmp_path):
    folder = tmp_path / ("x" * 100)
    with pytest.raises(ConfigurationError, match="too long"), free_path(folder, 0):
        pass


# -- certificates ---------------------------------------------------------------------------------------------------


def test_a_pair_that_does_not_match_is_refused(authority, mutual):
    other, _ = authority.issue("other")
    with pytest.raises(ConfigurationError, match="not the key of the certificate"):
        ServerTls(cert=other, key=mutual.key).read()


@pytest.mark.parametrize("what", ["cert", "key", "client_ca"])
@pytest.mark.parametrize("content", [None, b"", b"no pem"])
def test_each_file_is_checked_and_named(mutual, what, content):
    path = getattr(mutual, what)
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigurationError) as caught:
        mutual.read()
    assert str(path) in str(caught.value)


def test_new_files_are_looked_for_once_a_second_and_only_good_ones_taken(authority, mutual):
    now, log = [100.0], Remembering()
    certificate = ReloadingCertificate(mutual, log, lambda: now[0])
    assert certificate.changed() is None
    authority.issue("sidecar", dns=["localhost"])
    assert certificate.changed() is None
    now[0] += 1
    assert certificate.changed() is not None
    now[0] += 1
    assert certificate.changed() is None
    os.utime(mutual.cert)
    now[0] += 1
    assert certificate.changed() is None, "touched, but the same"
    mutual.key.write_bytes(b"half")
    now[0] += 1
    assert certificate.changed() is None
    now[0] += 1
    assert certificate.changed() is None
    assert [event for event, _ in log.lines].count(
        "new certificate files cannot be used; the certificate in use stays"
    ) == 1
    mutual.cert.unlink()
    now[0] += 1
    assert certificate.changed() is None
    authority.issue("sidecar", dns=["localhost"])
    now[0] += 1
    assert certificate.changed() is not None


def test_limits_become_channel_arguments():
    server = dict(Limits(message=7, metadata=9, streams=40, connections=5).server_options(share_port=False))
    assert server["grpc.max_receive_message_length"] == 7
    assert server["grpc.max_metadata_size"] == server["grpc.absolute_max_metadata_size"] == 9
    assert server["grpc.max_concurrent_streams"] == 10
    assert server["grpc.so_reuseport"] == 0
    assert dict(Limits(streams=1).server_options(share_port=True))["grpc.max_concurrent_streams"] == 1
    channel = dict(Limits().channel_options())
    assert channel["grpc.enable_retries"] == 0
    assert channel["grpc.enable_http_proxy"] == 0
    assert channel["grpc.keepalive_time_ms"] == UPSTREAM_KEEPALIVE_MS > 300_000
