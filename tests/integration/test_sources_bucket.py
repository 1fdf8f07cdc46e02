"""A bundle in a bucket of an S3-compatible store: a real one, of another's making, as a process beside the test."""

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import obstore
import pytest
from bundle_signing import write_bundle
from minimal_policy import write_policy
from obstore.store import S3Store

from sidecar.demo.processes import free_port, listening
from sidecar.errors import ConfigurationError
from sidecar.main import policy_bucket
from sidecar.main.policy_bucket import Bucket, BucketSource
from sidecar.main.sources import Look

KEY = "policies/b.tar.gz"
POLL = 30.0


class Store:
    """The store, and the keys to it in a file."""

    def __init__(self, port: int, folder: Path) -> None:
        self.endpoint = f"http://127.0.0.1:{port}"
        self.credentials = folder / "credentials"
        self.credentials.write_text("[default]\naws_access_key_id = me\naws_secret_access_key = secret\n")
        self._store = S3Store(
            "bundles", endpoint=self.endpoint, region="us-ashburn-1", access_key_id="me", secret_access_key="secret",
            client_options={"allow_http": True},
        )  # fmt: skip

    def put(self, content: bytes) -> None:
        obstore.put(self._store, KEY, content)

    def source(self, **more: object) -> BucketSource:
        given = {"url": f"s3://bundles/{KEY}", "poll": POLL, "region": "us-ashburn-1", "endpoint": self.endpoint,
                 "credentials_file": self.credentials, **more}  # fmt: skip
        return BucketSource(Bucket(**given), jitter=lambda: 0.5)


@pytest.fixture(scope="module")
def port(needs) -> Iterator[int]:
    program, port = needs("gofakes3", "run `make tools`"), free_port()
    command = [program, "-backend", "memory", "-initialbucket", "bundles", "-host", f"127.0.0.1:{port}", "-quiet"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        serves, give_up = listening(port), time.monotonic() + 20
        while not serves():
            assert process.poll() is None
            assert time.monotonic() < give_up
            time.sleep(0.05)
        yield port
        process.terminate()


@pytest.fixture
def store(port, tmp_path) -> Store:
    return Store(port, tmp_path)


@pytest.fixture
def bundle(tmp_path, store) -> Path:
    """The file that is in the bucket."""
    write_bundle(tmp_path / "b.tar.gz", write_policy(tmp_path / "policies"))
    store.put((tmp_path / "b.tar.gz").read_bytes())
    return tmp_path / "b.tar.gz"


def finding(source: BucketSource) -> str:
    with pytest.raises(ConfigurationError) as caught:
        source.look()
    assert caught.value.where
    assert caught.value.fix
    assert "secret" not in str(caught.value)
    return str(caught.value)


def test_it_is_got_once_and_again_when_it_changes(store, bundle, tmp_path):
    source = store.source()
    first = source.read()
    assert (first.label, source.where, source.kind) == ("trial", f"s3://bundles/{KEY}", "s3")
    assert source.look() is Look.UNCHANGED
    assert source.pause == POLL
    write_bundle(bundle, write_policy(tmp_path / "policies", ttl_seconds=7))
    store.put(bundle.read_bytes())
    found = source.look()
    assert found.revision != first.revision
    assert source.look() is Look.UNCHANGED
    assert source.read().revision == found.revision


def test_what_is_not_there(store):
    source = store.source(url="s3://bundles/nothing.tar.gz")
    assert "nothing is there" in finding(source)
    assert source.pause < POLL


def test_what_is_no_bundle(store, bundle):
    source = store.source()
    source.read()
    store.put(b"<html>")
    assert "not a .tar.gz" in finding(source)
    store.put(bundle.read_bytes())
    assert source.look().label == "trial", "after an error the bundle is given again"


def test_what_is_too_large(store, bundle, monkeypatch):
    monkeypatch.setattr(policy_bucket, "MAX_ARCHIVE_BYTES", 100)
    assert "larger than 100 bytes" in finding(store.source())


def test_nobody_there(store):
    began = time.monotonic()
    assert "cannot be fetched" in finding(store.source(endpoint=f"http://127.0.0.1:{free_port()}"))
    assert time.monotonic() - began < 10, "one try a look: the pauses are ours"


def test_new_credentials_are_taken_up(store, bundle):
    source = store.source()
    source.read()
    before = source._store
    store.credentials.write_text(store.credentials.read_text().replace("= me", "= you"))
    source.look()
    assert source._store is not before


@pytest.mark.parametrize("text", ["", "[other]\n", "[default]\naws_access_key_id = me\n", "x = ["])
def test_credentials_that_are_none(store, text):
    store.credentials.write_text(text)
    with pytest.raises(ConfigurationError, match="credentials_file") as caught:
        store.source()
    assert caught.value.fix


def test_missing_files_and_addresses_are_named(store, tmp_path):
    for more, words in (
        ({"credentials_file": tmp_path / "none"}, "credentials_file"),
        ({"ca": tmp_path / "none"}, r"policy\.bundle\.ca"),
        ({"endpoint": "http://store.corp"}, "plain http is for loopback"),
    ):
        with pytest.raises(ConfigurationError, match=words):
            store.source(**more)
