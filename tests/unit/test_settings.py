"""Settings files: what is read, and that every mistake is named with file, key, value and what to do."""

import contextlib
import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from settings_files import OVERSIGHT, SIDECAR, changed, refusal, refused, written

from sidecar.errors import ConfigurationError
from sidecar.settings.loader import load
from sidecar.settings.oversight import OversightSettings
from sidecar.settings.sidecar import SidecarSettings


class TestExamples:
    def test_every_key_of_the_sidecar_example_is_read(self, tmp_path: Path) -> None:
        found = load(written(tmp_path, SIDECAR), SidecarSettings, {})
        assert found.producer.name == "profiles-ashburn-1"
        assert [one.address for one in found.listen] == ["0.0.0.0:8443", "unix:/run/customhouse/proxy"]
        assert found.listen[1].workload == "spiffe://corp/ns/web"
        assert found.upstream.location.country == "US"
        first, second = found.identity.issuers
        assert (first.kind, first.jwks.url, first.jwks.refresh, first.jwks.max_stale) == (
            "personnel", "https://idp.corp/jwks.json", 300.0, 86400.0,
        )  # fmt: skip
        assert (second.kind, second.algorithms) == ("data_subject", ["RS256", "EdDSA"])
        assert found.identity.bind_to_workload == "cnf"
        assert found.identity.leeway == 5.0
        assert (found.identity.workloads[0].may, found.identity.workloads[0].acts_alone) == (["read"], True)
        assert found.describe.reflection == "identified"
        assert (found.policy.max_age, found.decision.deadline) == (7 * 86400.0, 0.05)
        assert (found.record.max_bytes, found.limits.message, found.limits.metadata) == (8 << 30, 4 << 20, 16 << 10)
        assert found.record.levels.personnel == "committed"
        assert found.destination.from_ == "peer"
        assert found.oversight.address == "oversight:9443"
        assert found.workers == 1

    def test_every_key_of_the_store_example_is_read(self, tmp_path: Path) -> None:
        found = load(written(tmp_path, OVERSIGHT, "oversight.yaml"), OversightSettings, {})
        assert (found.log.origin, found.log.interval) == ("oversight.corp/log", 1.0)
        assert found.listen.query == "[::1]:9445"
        assert (found.period_keys.length, found.period_keys.ahead, found.retention.years) == (30 * 86400.0, 2, 10)
        assert found.reviewers.identities == ["spiffe://corp/reviewer/ana"]

    def test_paths_are_relative_to_the_file(self, tmp_path: Path) -> None:
        folder = tmp_path / "etc"
        folder.mkdir()
        found = load(written(folder, changed("listen.1.address", "unix:run/proxy")), SidecarSettings, {})
        assert found.producer.key == folder / "keys/producer.pem"
        assert found.record.spool == Path("/var/lib/customhouse/spool")
        assert found.listen[1].address == f"unix:{folder}/run/proxy"

    def test_the_defaults(self, tmp_path: Path) -> None:
        text = SIDECAR
        for key in ("decision", "datasets", "exceptions", "admin", "metrics", "holder", "limits", "workers",
                    "record.levels", "record.max_bytes", "policy.max_age", "identity.leeway"):  # fmt: skip
            text = changed(key, ..., text)
        found = load(written(tmp_path, text), SidecarSettings, {})
        assert found.datasets is found.exceptions is found.admin is found.metrics is found.holder is None
        assert found.record.levels.model_dump() == {
            "personnel": "committed", "workload": "committed", "data_subject": "written", "deny": "written",
        }  # fmt: skip
        assert (found.record.max_bytes, found.policy.max_age, found.decision.deadline) == (8 << 30, 7 * 86400.0, 0.05)
        assert (found.limits.token, found.workers, found.identity.leeway) == (8 << 10, 1, 10.0)

    def test_what_was_read_cannot_be_changed(self, tmp_path: Path) -> None:
        found = load(written(tmp_path, SIDECAR), SidecarSettings, {})
        with pytest.raises(ValueError, match="frozen"):
            found.limits.streams = 7  # type: ignore[misc]


class TestUnknownKeys:
    @pytest.mark.parametrize(
        ("key", "near"),
        [
            ("producers", "producer"),
            ("producer.nam", "name"),
            ("identity.bind_to_workloads", "bind_to_workload"),
            ("listen.0.adress", "address"),
            ("listen.0.tls.clientca", "client_ca"),
            ("identity.issuers.0.jwks.uri", "url"),
            ("identity.workloads.0.operates_from", "operated_from"),
            ("record.levels.personell", "personnel"),
            ("destination.from_", "from"),
            ("oversight.tls.server_nam", "server_name"),
        ],
    )
    def test_the_nearest_known_key_is_named(self, tmp_path: Path, key: str, near: str) -> None:
        file = written(tmp_path, changed(key, "x"))
        text = refusal(file)
        assert str(file) in text
        assert f"{key}: unknown key; did you mean {near!r}?" in text

    def test_a_key_like_no_other_is_refused_without_a_guess(self, tmp_path: Path) -> None:
        assert "zzz: unknown key." in refused(tmp_path, "zzz", 1)

    @pytest.mark.parametrize("key", ["witnesses", "oidc", "storage.postgres", "tiles.s3", "listen.web"])
    def test_a_key_of_a_later_version_is_refused_by_name(self, tmp_path: Path, key: str) -> None:
        text = refusal(written(tmp_path, changed(key, {"file": "x"}, OVERSIGHT)), OversightSettings)
        assert f"{key}: " in text
        assert "is not in this version; remove the key" in text

    def test_a_door_without_a_listener_says_where_it_is(self, tmp_path: Path) -> None:
        text = refused(tmp_path, "listen.0.door", "interceptor")
        assert "listen.0.door: " in text
        assert "sidecar.main.in_process" in text
        assert "(found 'interceptor')" in text

    def test_a_proxy_needs_somewhere_to_forward_to(self, tmp_path: Path) -> None:
        assert "needs upstream.address" in refused(tmp_path, "upstream.address", None)

    def test_every_mistake_is_named_at_once(self, tmp_path: Path) -> None:
        text = refusal(written(tmp_path, changed("limits.streems", 3, changed("upstream.location.country", "USA"))))
        assert "limits.streems: unknown key" in text
        assert "upstream.location.country: " in text
        assert "(found 'USA')" in text
        assert "(2 problems)" in text


class TestValues:
    @pytest.mark.parametrize(
        ("text", "seconds"), [("50ms", 0.05), ("10s", 10.0), ("5m", 300.0), ("24h", 86400.0), ("7d", 604800.0), ("1.5h", 5400.0)]
    )  # fmt: skip
    def test_durations(self, tmp_path: Path, text: str, seconds: float) -> None:
        found = load(written(tmp_path, changed("policy.max_age", text)), SidecarSettings, {})
        assert found.policy.max_age == pytest.approx(seconds)

    @pytest.mark.parametrize(
        "value", ["10", 10, 1.5, "10 s", "-5s", "s", "1e3s", "٣s", "1w", "", None, True, "0s", "9" * 400 + "d", ["5s"]]
    )
    def test_what_is_no_duration(self, tmp_path: Path, value: object) -> None:
        assert "policy.max_age: " in refused(tmp_path, "policy.max_age", value)

    def test_a_duration_without_a_unit_says_so(self, tmp_path: Path) -> None:
        assert "such as 50ms or 24h (found 10)" in refused(tmp_path, "policy.max_age", 10)

    @pytest.mark.parametrize(
        ("text", "size"), [("512B", 512), ("16KiB", 16 << 10), ("4MiB", 4 << 20), ("1GiB", 1 << 30)]
    )
    def test_sizes(self, tmp_path: Path, text: str, size: int) -> None:
        assert load(written(tmp_path, changed("limits.message", text)), SidecarSettings, {}).limits.message == size

    @pytest.mark.parametrize(
        "value", ["4MB", "4", 4, "1.5MiB", "-1B", "0B", "", None, "٤MiB", "9" * 5000 + "B", "2GiB"]
    )
    def test_what_is_no_size_or_too_much(self, tmp_path: Path, value: object) -> None:
        assert "limits.message: " in refused(tmp_path, "limits.message", value)

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("producer.name", "Profiles"), ("producer.name", ""), ("producer.name", 7), ("producer.name", None),
            ("producer.key", ""), ("producer.key", 7), ("producer.key", "a\0b"),
            ("producer", []), ("producer", None), ("producer", "x"),
            ("listen", {}), ("listen.0.door", "grpc"), ("listen.0.address", "8443"),
            ("listen.0.address", "host:99999"), ("listen.0.address", "host:-1"), ("listen.0.address", ""),
            ("listen.0.address", "::1:8443"), ("listen.0.address", "unix:"), ("listen.0.address", "http://host:1"),
            ("listen.0.workload", "spiffe://corp/ns/web"),
            ("listen.1.workload", ...),
            ("upstream.tls.cert", ...), ("upstream.tls.key", ...), ("upstream.tls.ca", ...),
            ("upstream.location.country", "us"), ("upstream.location.country", "US\n"),
            ("identity.issuers", []), ("identity.issuers.0.kind", "staff"), ("identity.issuers.0.algorithms", []),
            ("identity.issuers.0.algorithms", ["HS256"]), ("identity.issuers.0.algorithms", ["none"]),
            ("identity.issuers.0.jwks", {}), ("identity.issuers.0.jwks.file", "x"),
            ("identity.issuers.0.jwks.url", "ftp://x"), ("identity.issuers.0.issuer", ""),
            ("identity.bind_to_workload", "maybe"), ("identity.bind_to_workload", ...),
            ("identity.directory.max_age", "2d"), ("identity.leeway", "31s"), ("identity.workloads.0.may", ["fly"]),
            ("identity.workloads.0.acts_alone", "yes"), ("identity.workloads.0.acts_alone", 1),
            ("describe.descriptors", {}), ("describe.descriptors.reflection", True), ("describe.reflection", "on"),
            ("decision.deadline", "6s"), ("decision.cache.entries", -1), ("decision.cache.entries", True),
            ("record.ticket_pattern", "(["), ("record.levels.deny", "lost"), ("record.levels.deny", "Written"),
            ("destination", {}), ("destination.country", "US"), ("destination.region", "x"), ("destination.from", "me"),
            ("oversight.address", "unix:/x"), ("oversight.address", "oversight"), ("metrics.listen", "9464"),
            ("limits.token", "9KiB"), ("limits.streams", 0), ("limits.streams", 1.0), ("limits.streams", "1"),
            ("workers", 0), ("workers", True), ("workers", "1"),
        ],
    )  # fmt: skip
    def test_a_bad_value_is_refused_with_its_key(self, tmp_path: Path, key: str, value: object) -> None:
        text = refused(tmp_path, key, value)
        named = [part for part in key.split(".")[:1] if part in text]
        assert named, text
        assert str(tmp_path / "sidecar.yaml") in text
        assert "docs/settings.md" in text

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("log.origin", "two words"), ("log.origin", "a+b"), ("log.origin", ""), ("log.origin", "a\x01b"),
            ("log.interval", "1ms"), ("listen.tls.client_ca", ...), ("listen.append", "unix:/x"),
            ("reviewers.identities", []), ("period_keys.ahead", 0), ("retention.years", 9), ("storage", {}),
            ("secrets.database", ...),
        ],
    )  # fmt: skip
    def test_so_is_one_of_the_store(self, tmp_path: Path, key: str, value: object) -> None:
        text = refusal(written(tmp_path, changed(key, value, OVERSIGHT)), OversightSettings)
        assert key.partition(".")[0] in text

    def test_a_long_value_is_cut(self, tmp_path: Path) -> None:
        assert len(refused(tmp_path, "producer.name", "x" * 10_000)) < 1000

    @pytest.mark.parametrize("key", [key for key in yaml.safe_load(SIDECAR) if key in
                                     ("producer", "upstream", "identity", "describe", "subjects", "policy",
                                      "record", "destination", "oversight")])  # fmt: skip
    def test_a_missing_section_is_named(self, tmp_path: Path, key: str) -> None:
        assert f"{key}: missing" in refused(tmp_path, key, ...)


class TestYaml:
    def test_a_country_is_not_false(self, tmp_path: Path) -> None:
        """Norway: YAML 1.1 reads NO as false."""
        text = SIDECAR.replace("country: US}", "country: NO}").replace("operated_from: US", "operated_from: NO")
        found = load(written(tmp_path, text), SidecarSettings, {})
        assert found.upstream.location.country == "NO"
        assert found.identity.workloads[0].operated_from == "NO"

    @pytest.mark.parametrize(
        "word", ["yes", "on", "y", "True1", "1:30", "0x10", "010", "2026-01-01", "1_000", "=", "~x"]
    )
    def test_words_stay_words(self, tmp_path: Path, word: str) -> None:
        text = SIDECAR.replace("name: Platform Inc.", f"name: {word}")
        found = load(written(tmp_path, text), SidecarSettings, {})
        assert found.holder is not None
        assert found.holder.name == word

    @pytest.mark.parametrize(
        "text",
        [
            "workers: 1\nworkers: 1\n",
            "producer: {name: a, name: b}\n",
            "producer: {name: a, 'name': b}\n",
            "a: &x {b: 1}\nc: {<<: *x, d: 1, d: 2}\n",
        ],
    )
    def test_a_key_given_twice(self, tmp_path: Path, text: str) -> None:
        found = refusal(written(tmp_path, text))
        assert "is given twice" in found
        assert "line " in found

    @pytest.mark.parametrize(
        "text",
        [
            "a: [1, 2\n", "a: b: c\n", "\t- x\n", "a: *nobody\n", "--- a\n--- b\n", "a: !!python/object:os.system x\n",
            "? [a, b]\n: c\n", "? {a: b}\n: c\n", "1: x\n", "a: !!int x\n", "a: !!timestamp 2026-13-45\n",
            "a: !!int " + "9" * 5000 + "\n", "[" * 20_000, "a: " * 3000, "a: \x00b\n", "a: \ud7ff\x07\n", "%YAML 9.9\n",
            "&x [*x]\n", "a: !!binary '*'\n", "a: !!float x\n", "a: !!set [1]\n", "a: !!map x\n",
            "!!omap [a: 1]\n", "a: !!pairs x\n", "@x\n", "`x`\n",
        ],
    )  # fmt: skip
    def test_what_is_no_yaml_of_ours(self, tmp_path: Path, text: str) -> None:
        assert str(tmp_path / "sidecar.yaml") in refusal(written(tmp_path, text))

    @pytest.mark.parametrize("text", ["", "# nothing\n", "- a\n", "text\n", "7\n", "null\n"])
    def test_no_mapping(self, tmp_path: Path, text: str) -> None:
        assert "holds no mapping" in refusal(written(tmp_path, text))

    def test_not_utf8(self, tmp_path: Path) -> None:
        assert "is not UTF-8 at byte 8" in refusal(written(tmp_path, b"holder: \xff\xfe"))

    def test_a_huge_file(self, tmp_path: Path) -> None:
        assert "larger than 1 MiB" in refusal(written(tmp_path, b"#" * ((1 << 20) + 1)))

    def test_a_bomb_of_aliases(self, tmp_path: Path) -> None:
        rows = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
        rows += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
        assert "a11: unknown key" in refusal(written(tmp_path, "\n".join(rows)))
        assert "listen.0: " in refusal(written(tmp_path, "\n".join(rows) + "\nlisten: *a11\n"))

    @pytest.mark.parametrize("make", ["missing", "folder", "loop"])
    def test_what_cannot_be_read(self, tmp_path: Path, make: str) -> None:
        file = tmp_path / "sidecar.yaml"
        if make == "folder":
            file.mkdir()
        elif make == "loop":
            file.symlink_to(file)
        text = refusal(file)
        assert "cannot be read: " in text
        assert "--config" in text

    @settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        data=st.one_of(st.binary(max_size=200), st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace")))
    )
    def test_no_bytes_make_a_traceback(self, tmp_path: Path, data: bytes) -> None:
        refusal(written(tmp_path, data))

    @settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(data=st.data())
    def test_nor_does_any_value_in_the_place_of_any_other(self, tmp_path: Path, data: st.DataObject) -> None:
        tree = copy.deepcopy(yaml.safe_load(SIDECAR))
        place: Any = tree
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            key = data.draw(st.sampled_from(keys))
            if isinstance(place[key], dict | list) and place[key] and data.draw(st.booleans()):
                place = place[key]
                continue
            break
        scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20)
        place[key] = data.draw(scalars | st.lists(scalars, max_size=3) | st.dictionaries(st.text(max_size=5), scalars))
        file = written(tmp_path, yaml.safe_dump(tree))
        with contextlib.suppress(ConfigurationError):
            load(file, SidecarSettings, {})


class TestEnvironment:
    def test_it_is_laid_over_the_file(self, tmp_path: Path) -> None:
        found = load(
            written(tmp_path, SIDECAR),
            SidecarSettings,
            {
                "CUSTOMHOUSE_RECORD__MAX_BYTES": "2GiB",
                "CUSTOMHOUSE_UPSTREAM__LOCATION__COUNTRY": "NO",
                "CUSTOMHOUSE_DESCRIBE__UNGUARDED": "[a.B/C]",
                "CUSTOMHOUSE_LIMITS": "{streams: 5}",
                "CUSTOMHOUSE_LIMITS__TOKEN": "4KiB",
                "PATH": "/bin",
                "CUSTOMHOUSE": "x",
            },
        )
        assert found.record.max_bytes == 2 << 30
        assert found.upstream.location.country == "NO"
        assert found.describe.unguarded == ["a.B/C"]
        assert (found.limits.streams, found.limits.token, found.limits.message) == (5, 4 << 10, 4 << 20)

    def test_a_section_that_the_file_lacks(self, tmp_path: Path) -> None:
        text = changed("metrics", ...)
        found = load(written(tmp_path, text), SidecarSettings, {"CUSTOMHOUSE_METRICS__LISTEN": "127.0.0.1:1"})
        assert found.metrics is not None
        assert found.metrics.listen == "127.0.0.1:1"

    def test_the_variables_of_reviewers_are_no_settings(self, tmp_path: Path) -> None:
        environment = {"CUSTOMHOUSE_REVIEW_STORE": "localhost:1", "CUSTOMHOUSE_REVIEW_CA": "ca.pem"}
        assert load(written(tmp_path, SIDECAR), SidecarSettings, environment).workers == 1

    @pytest.mark.parametrize(
        ("name", "value", "said"),
        [
            ("CUSTOMHOUSE_RECORD__MAX_BYTE", "2GiB", "record.max_byte: unknown key; did you mean 'max_bytes'?"),
            ("CUSTOMHOUSE_RECORD__MAX_BYTES", "2GB", "record.max_bytes: "),
            ("CUSTOMHOUSE_HOLDER__NAME", "'open", "is not YAML"),
            ("CUSTOMHOUSE_HOLDER__NAME", "{a: 1, a: 2}", "is given twice"),
            ("CUSTOMHOUSE_LISTEN__0__ADDRESS", "x:1", "no mapping"),
            ("CUSTOMHOUSE_WORKERS__COUNT", "1", "no mapping"),
            ("CUSTOMHOUSE_", "1", "unknown key"),
            ("CUSTOMHOUSE_A____B", "1", "unknown key"),
        ],
    )
    def test_a_mistake_names_the_variable(self, tmp_path: Path, name: str, value: str, said: str) -> None:
        text = refusal(written(tmp_path, SIDECAR), environment={name: value})
        assert said in text
        assert name in text

    def test_without_one_given_it_is_the_process_s(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CUSTOMHOUSE_LIMITS__STREAMS", "9")
        assert load(written(tmp_path, SIDECAR), SidecarSettings).limits.streams == 9
