"""Who may append: added, revoked, reloaded; anything unreadable lets nobody in."""

import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from store_rig import CLOCK

from sidecar.errors import ConfigurationError
from sidecar.oversight import private_keys
from sidecar.oversight.producers import Registry, add_producer, list_producers, read_public_key, revoke_producer

pytestmark = pytest.mark.unit
KEY, OTHER = Ed25519PrivateKey.generate().public_key(), Ed25519PrivateKey.generate().public_key()
ME = frozenset({"spiffe://corp/one", "dns.name"})


@pytest.fixture
def path(tmp_path):
    return tmp_path / "producers.jsonl"


def add(path, name="one", key=KEY, identity="spiffe://corp/one"):
    return add_producer(path, name=name, public_key=key, identity=identity, now=CLOCK)


def test_added_found_revoked_and_added_again_without_a_restart(path):
    registry = Registry(path)
    assert registry.find("one", ME) is None
    assert not registry.knows(ME)
    add(path)
    assert registry.find("one", ME).public_bytes_raw() == KEY.public_bytes_raw()
    assert registry.knows(ME)
    assert registry.find("one", frozenset({"spiffe://corp/two"})) is None
    assert registry.find("one", frozenset()) is None
    assert registry.find("two", ME) is None
    revoke_producer(path, name="one", now=CLOCK)
    assert registry.find("one", ME) is None
    assert not registry.knows(ME)
    add(path, key=OTHER)
    assert registry.find("one", ME).public_bytes_raw() == OTHER.public_bytes_raw()
    assert [(one.name, one.revoked) for one in list_producers(path)] == [("one", CLOCK), ("one", None)]


@pytest.mark.parametrize(("name", "identity"), [("store", "i"), ("", "i"), ("a" * 101, "i"), ("a\nb", "i"), ("a", "")])
def test_names_and_identities_are_checked(path, name, identity):
    with pytest.raises(ConfigurationError):
        add(path, name=name, identity=identity)
    assert not path.exists()


def test_a_name_is_used_once_and_only_the_registered_are_revoked(path):
    add(path)
    with pytest.raises(ConfigurationError, match="registered already"):
        add(path, key=OTHER)
    with pytest.raises(ConfigurationError, match="no producer 'two'"):
        revoke_producer(path, name="two", now=CLOCK)


@pytest.mark.parametrize(
    "line",
    [b"{", b"[]", b'{"name":"x"}', b'{"name":"x","key":"AAAA","identity":"i","added":"t"}',
     b'{"name":"x","key":"*","identity":"i","added":"t"}',
     b'{"name":"store","key":"%s","identity":"i","added":"t"}', b'{"name":"one","key":"%s","identity":"i","added":"t"}',
     b'{"name":"x","key":"%s","identity":"i","added":"t","more":1}'],
)  # fmt: skip
def test_a_line_that_cannot_be_read_lets_nobody_in_and_is_named(path, line):
    add(path)
    registry = Registry(path)
    good = json.loads(path.read_bytes())["key"].encode()
    path.write_bytes(path.read_bytes() + line.replace(b"%s", good) + b"\n")
    with pytest.raises(ConfigurationError, match=r"producers.jsonl:2"):
        registry.find("one", ME)
    with pytest.raises(ConfigurationError):
        registry.knows(ME)


def test_public_keys_in_pem():
    pem = KEY.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    assert read_public_key(pem, "here").public_bytes_raw() == KEY.public_bytes_raw()
    elliptic = generate_private_key(SECP256R1()).public_key()
    for wrong in (b"", b"text", elliptic.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)):
        with pytest.raises(ConfigurationError, match="here"):
            read_public_key(wrong, "here")


def test_the_stores_own_key_is_made_once_and_private(tmp_path):
    path = tmp_path / "own.pem"
    key = private_keys.own(path)
    assert private_keys.own(path).private_bytes_raw() == key.private_bytes_raw()
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(ConfigurationError, match="not an X25519"):
        private_keys.x25519(path)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        private_keys.ed25519(tmp_path / "none.pem")
    path.write_text("text")
    with pytest.raises(ConfigurationError, match="not an unencrypted PEM"):
        private_keys.own(path)
