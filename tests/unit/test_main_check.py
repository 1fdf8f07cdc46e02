"""What can be tried before serving, and what each part says when a file it needs is missing or wrong."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from worlds import changed, make_world

from sidecar.errors import ConfigurationError, IdentifyError, RecordError
from sidecar.main import build
from sidecar.main.given import clock
from sidecar.main.process import check
from sidecar.main.records import Records, about
from sidecar.settings.loader import load
from sidecar.settings.sidecar import SidecarSettings


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Iterator[Path]:
    """The folder of a whole deployment, which no test changes for good."""
    folder = tmp_path_factory.mktemp("deployment")
    make_world(folder)
    return folder


def settings(folder: Path, **changes: object) -> SidecarSettings:
    tree = yaml.safe_load((folder / "sidecar.yaml").read_text())
    file = folder / "changed.yaml"
    file.write_text(yaml.safe_dump(changed(tree, {key.replace("__", "."): value for key, value in changes.items()})))
    return load(file, SidecarSettings, {})


def refusal(folder: Path, **changes: object) -> str:
    with pytest.raises(ConfigurationError) as caught:
        check(settings(folder, **changes))
    return str(caught.value)


def test_a_whole_deployment_is_good(world: Path) -> None:
    lines = check(settings(world))
    assert [line.split()[0] for line in lines] == [
        "directory", "subject", "policy", "methods", "issuer", "issuer", "revoked", "exceptions", "authorizations",
        "ledger", "records", "listener",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("key", "file"),
    [
        ("producer__key", "producer.key"),
        ("policy__bundle__folder", "policy.bundle.folder"),
        ("identity__directory__file", "identity.directory.file"),
        ("subjects__index", "subjects.index"),
        ("describe__descriptors__file", "describe.descriptors.file"),
        ("describe__overlay", "describe.overlay"),
        ("datasets__file", "datasets.file"),
        ("identity__revoked__file", "identity.revoked.file"),
        ("exceptions__approvers", "exceptions.approvers"),
        ("exceptions__grants", "exceptions.grants"),
        ("oversight__trust", "oversight.trust"),
        ("oversight__seal_key", "oversight.seal_key"),
        ("oversight__tls__ca", "oversight.tls"),
        ("oversight__tls__key", "oversight.tls"),
        ("upstream__tls__cert", "upstream.tls"),
        ("upstream__tls__ca", "upstream.tls"),
    ],
)
def test_a_file_that_is_not_there_is_named_with_its_key(world: Path, key: str, file: str) -> None:
    text = refusal(world, **{key: "nowhere/nope"})
    assert text.startswith(f"{file}: ")
    assert str(world / "nowhere" / "nope") in text
    assert text.count(". ") >= 1, "it says what to do"


@pytest.mark.parametrize(
    ("key", "holds"),
    [
        ("producer__key", "store-seal.pub"),
        ("oversight__seal_key", "keys/producer.pem.pub"),
        ("oversight__trust", "ca.pem"),
        ("identity__revoked__file", "ca.pem"),
        ("exceptions__approvers", "ca.pem"),
        ("upstream__tls__key", "tls/web.key"),
        ("upstream__tls__ca", "trust.txt"),
        ("oversight__tls__cert", "tls/web.pem"),
    ],
)
def test_a_file_that_holds_something_else_is_named_with_its_key(world: Path, key: str, holds: str) -> None:
    text = refusal(world, **{key: holds})
    assert text.startswith(".".join(key.split("__")[:2]))
    assert str(world) in text


@pytest.mark.parametrize(("part", "value"), [("cert", "nope.pem"), ("key", "tls/web.key"), ("client_ca", "trust.txt")])
def test_a_listener_s_certificate_is_read(world: Path, part: str, value: str) -> None:
    tree = yaml.safe_load((world / "sidecar.yaml").read_text())
    tls = {**tree["listen"][0]["tls"], part: value}
    text = refusal(world, listen=[{**tree["listen"][0], "tls": tls}])
    assert text.startswith(f"listen.0.tls: {world / value}: ")


def test_an_issuer_s_key_file_is_read_and_its_address_is_not_asked(world: Path) -> None:
    tree = yaml.safe_load((world / "sidecar.yaml").read_text())
    first, second = tree["identity"]["issuers"]
    text = refusal(world, identity__issuers=[first, {**second, "jwks": {"file": "ca.pem"}}])
    assert text.startswith(f"identity.issuers.1.jwks.file: {world / 'ca.pem'}: holds no keys")
    far = {**first, "jwks": {"url": "https://idp.invalid/jwks.json"}}
    lines = check(settings(world, identity__issuers=[far, second]))
    assert sum(line.startswith("issuer") for line in lines) == 1
    assert "jwks" in refusal(world, identity__issuers=[{**first, "jwks": {"url": "http://idp.invalid/x"}}, second])


def test_a_damaged_grant_is_named(world: Path) -> None:
    grant = world / "grants" / "bad.json"
    grant.write_text("{}")
    try:
        assert refusal(world).startswith(f"exceptions.grants: {grant}: cannot be used")
    finally:
        grant.unlink()


def test_the_bound_on_tokens_is_the_configured_one(world: Path) -> None:
    token = (world / "tokens" / "amy.jwt").read_text()
    build.tokens(settings(world)).verify(token, clock())
    with pytest.raises(IdentifyError, match="longer than 100 bytes"):
        build.tokens(settings(world, limits__token="100B")).verify(token, clock())


class FullDisk:
    async def start(self, about: object) -> None:
        raise RecordError("the access cannot be recorded now", operator="spool: No space left on device")


async def test_a_start_on_a_full_disk_is_said_in_one_line_for_the_operator() -> None:
    records = Records(None, FullDisk(), None, None, None, None)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError) as caught:
        await records.start()
    assert str(caught.value) == (
        "record.spool: the records cannot be begun: spool: No space left on device. "
        "Give the disk what it lacks, then start again."
    )


def test_an_epoch_says_what_the_sidecar_guards_and_who_holds_the_data(world: Path) -> None:
    used = settings(world)
    said = about(used, build.describer(used))
    assert said["services"] == ["sidecar.demo.profiles.v1.Profiles"]
    assert said["upstream"] == used.upstream.address
    assert said["listen"] == [used.listen[0].address]
    assert (said["holder_name"], said["holder_contact"]) == ("Platform USDS Inc.", "privacy@demo.example")
    assert "version" in said
    assert about(settings(world, holder=None), build.describer(used))["holder_address"] is None
