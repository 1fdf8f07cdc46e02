"""An OPA that others run, with the same bundle: its answers count only for the bundle that is in force here."""

import asyncio
import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from opa_parts import ONLY_AMY, bundle, decide, question

from sidecar.decision.opa import OpaAtUrl
from sidecar.decision.opa_http import Address
from sidecar.decision.opa_program import packed
from sidecar.demo.processes import free_port
from sidecar.errors import ConfigurationError, DecideError, Superseded
from sidecar.vocabulary import canonical

NEXT = "sha256:" + "b" * 64
AUTHZ = 'package system.authz\n\ndefault allow := false\n\nallow if input.identity == "s3cret"\n'


@pytest.fixture
def program(needs) -> str:
    return str(needs("opa", "run `make tools`"))


@contextmanager
def opa(program: str, folder: Path, found, *more: str) -> Iterator[Address]:
    """`opa run --server` on loopback TCP, watching its bundle file."""
    (folder / "bundle.tar.gz").write_bytes(packed(found))
    port = free_port()
    command = [program, "run", "--server", "--watch", "--bundle", "bundle.tar.gz", "--addr", f"127.0.0.1:{port}",
               "--log-level", "error", "--skip-version-check", *more]  # fmt: skip
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield Address(host="127.0.0.1", port=port)
        finally:
            process.kill()


async def test_it_waits_until_opa_has_the_bundle_and_answers(program, tmp_path):
    with opa(program, tmp_path, bundle()) as address:
        engine = await asyncio.to_thread(OpaAtUrl(address, 10.0).make, bundle())
        assert engine.name == "opa"
        assert (await decide(engine, "amy")).permits
        assert not (await decide(engine, "ed")).permits
        await engine.close()


async def test_another_bundle_supersedes_and_the_next_engine_waits_for_it(program, tmp_path):
    after = bundle(ONLY_AMY.replace("amy", "bob"), revision=NEXT)
    with opa(program, tmp_path, bundle()) as address:
        maker = OpaAtUrl(address, 10.0)
        old = await asyncio.to_thread(maker.make, bundle())
        making = asyncio.create_task(asyncio.to_thread(maker.make, after))
        for _ in range(5):
            assert (await decide(old, "amy")).permits
        (tmp_path / "new").write_bytes(packed(after))
        (tmp_path / "new").replace(tmp_path / "bundle.tar.gz")
        new = await asyncio.wait_for(making, 60)
        with pytest.raises(Superseded) as caught:
            await decide(old, "amy")
        assert caught.value.revision == NEXT
        assert not (await decide(new, "amy")).permits
        assert (await decide(new, "bob")).permits
        await old.close()
        assert (await decide(new, "bob")).permits, "the server is not ours to stop"
        await new.close()


def test_a_bundle_that_does_not_come_is_an_error_that_says_what_is_there(program, tmp_path):
    with opa(program, tmp_path, bundle()) as address:
        OpaAtUrl(address, 10.0).make(bundle())  # it is up
        began = time.monotonic()
        with pytest.raises(ConfigurationError) as caught:
            OpaAtUrl(address, 10.0, wait_seconds=0.3).make(bundle(revision=NEXT))
        assert time.monotonic() - began < 10
    assert NEXT in caught.value.what
    assert caught.value.value == bundle().revision
    assert "sidecar policy build" in caught.value.fix
    assert caught.value.where == "decision.opa.url"


def test_nobody_there_is_an_error_too():
    with pytest.raises(ConfigurationError) as caught:
        OpaAtUrl(Address(host="127.0.0.1", port=free_port()), 2.0, wait_seconds=0.2).make(bundle())
    assert "no answer" in str(caught.value.value)


async def test_the_token_opens_it_and_without_one_nothing_does(program, tmp_path):
    guarded = replace(bundle(), modules=(*bundle().modules, ("authz.rego", AUTHZ)))
    with opa(program, tmp_path, guarded, "--authentication", "token", "--authorization", "basic") as address:
        engine = await asyncio.to_thread(OpaAtUrl(address, 10.0, token=lambda: "s3cret").make, bundle())
        assert (await decide(engine, "amy")).permits
        await engine.close()
        with pytest.raises(ConfigurationError, match="within"):
            await asyncio.to_thread(OpaAtUrl(address, 10.0, wait_seconds=0.2).make, bundle())
        tokens = iter(["s3cret", "s3cret", "over"])
        engine = await asyncio.to_thread(OpaAtUrl(address, 10.0, token=lambda: next(tokens)).make, bundle())
        assert (await decide(engine, "amy")).permits
        with pytest.raises(DecideError):
            await decide(engine, "amy")
        await engine.close()


def test_the_embedded_engine_stands_in_for_tests_and_trial():
    maker = OpaAtUrl(Address(host="127.0.0.1", port=1), 2.0)
    assert [one.passed for one in maker.run_tests(bundle())] == [True]
    with maker.trial(bundle()) as evaluate:
        assert json.loads(evaluate(canonical(question("ed"))))["effect"] == "deny"
    for refused in (maker.run_tests, lambda found: maker.trial(found).__enter__()):
        with pytest.raises(ConfigurationError, match="OPA at a URL cannot try a bundle") as caught:
            refused(bundle("decision := time.now_ns()"))
        assert "decision.opa.command" in caught.value.fix
