"""values.schema.json against the program's own loader: what one takes the other takes, and the file is up to date."""

import json
from pathlib import Path

import jsonschema
import pytest
import yaml
from helm_parts import CHARTS, ROOT, example
from helm_schema import expected
from settings_files import OVERSIGHT, SIDECAR, changed

from sidecar.errors import ConfigurationError
from sidecar.settings.ledger import LedgerSettings
from sidecar.settings.loader import load
from sidecar.settings.oversight import OversightSettings
from sidecar.settings.sidecar import SidecarSettings

MODELS = {"sidecar": SidecarSettings, "oversight": OversightSettings, "ledger": LedgerSettings}
LEDGER = yaml.safe_dump(example("sidecar", "ledger")["ledger"]["config"])


def validator(settings: str) -> jsonschema.Draft202012Validator:
    """The part of the chart's schema that is about a settings file."""
    whole = json.loads(
        (CHARTS / ("oversight" if settings == "oversight" else "sidecar") / "values.schema.json").read_text()
    )
    return jsonschema.Draft202012Validator({**whole["$defs"][f"{settings}.yaml"], "$defs": whole["$defs"]})


def loads(folder: Path, settings: str, text: str) -> bool:
    file = folder / "settings.yaml"
    file.write_text(text)
    try:
        load(file, MODELS[settings], {})
    except ConfigurationError:
        return False
    return True


@pytest.mark.parametrize("name", expected())
def test_the_schema_is_the_model_s(name):
    assert (ROOT / name).read_text() == expected()[name], "run `make generate` and commit the result"


@pytest.mark.parametrize("settings", MODELS)
def test_it_is_a_schema(settings):
    jsonschema.Draft202012Validator.check_schema(validator(settings).schema)


@pytest.mark.parametrize(("settings", "text"), [("sidecar", SIDECAR), ("oversight", OVERSIGHT), ("ledger", LEDGER)])
def test_what_the_loader_takes_the_schema_takes(tmp_path, settings, text):
    assert loads(tmp_path, settings, text)
    validator(settings).validate(yaml.safe_load(text))


WRONG = [
    ("producer.name", "Upper"), ("producer.nam", "x"), ("record.max_bytes", "8"), ("record.max_bytes", 8),
    ("record.levels.deny", "maybe"), ("identity.issuers.0.algorithms", []), ("identity.issuers.0.algorithms", ["none"]),
    ("identity.directory.max_age", "1"), ("limits.streams", 0), ("limits.streams", "many"), ("oversight.address", "store"),
    ("listen.0.address", "8443"), ("upstream.location.country", "USA"), ("workers", "two"),
    ("decision.engine", "cedar"), ("policy.bundle.url", "ftp://x"), ("admin", ...), ("upstream", ...), ("describe.reflection", True),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value"), WRONG)
def test_what_the_schema_refuses_the_loader_refuses(tmp_path, key, value):
    """Never the other way round: a chart that refuses what the program takes would be in the way."""
    text = changed(key, value)
    refused = not validator("sidecar").is_valid(yaml.safe_load(text))
    if refused:
        assert not loads(tmp_path, "sidecar", text)
    else:
        assert loads(tmp_path, "sidecar", text), "the schema has to say this one too"


def test_every_key_of_the_model_is_in_the_schema():
    def names(schema, definitions, seen):
        if "$ref" in schema:
            name = schema["$ref"].rpartition("/")[2]
            if name in seen:
                return
            yield from names(definitions[name], definitions, seen | {name})
        for key, below in schema.get("properties", {}).items():
            assert schema["additionalProperties"] is False
            yield key
            yield from names(below, definitions, seen)
        for below in [schema.get("items", {}), *schema.get("anyOf", []), *schema.get("oneOf", [])]:
            if isinstance(below, dict) and below:
                yield from names(below, definitions, seen)

    for settings, model in MODELS.items():
        schema = validator(settings).schema
        found = set(names(schema, schema["$defs"], frozenset()))
        for name, field in model.model_fields.items():
            assert (field.alias or name) in found


def test_a_value_s_own_default_is_accepted():
    """Every default in values.yaml, except the settings, which have none."""
    for chart in ("sidecar", "oversight"):
        values = yaml.safe_load((CHARTS / chart / "values.yaml").read_text())
        schema = json.loads((CHARTS / chart / "values.schema.json").read_text())
        errors = list(jsonschema.Draft202012Validator(schema).iter_errors(values))
        assert errors
        assert all(list(one.absolute_path)[:1] == ["config"] for one in errors), errors
        assert set(values) == set(schema["properties"]) - {"global"}, "a value nobody can read about, or nobody can set"
