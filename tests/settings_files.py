"""Settings files as an operator would write them: every key of the interface that this version reads."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from sidecar.errors import ConfigurationError
from sidecar.settings.loader import load
from sidecar.settings.sidecar import SidecarSettings

SIDECAR = r"""
producer: {name: profiles-ashburn-1, key: keys/producer.pem}
listen:
  - {door: proxy, address: 0.0.0.0:8443, tls: {cert: tls/proxy.pem, key: tls/proxy.key, client_ca: tls/callers.pem}}
  - {door: proxy, address: unix:/run/customhouse/proxy, workload: spiffe://corp/ns/web}
upstream:
  address: 127.0.0.1:50051
  tls: {ca: tls/upstream-ca.pem, cert: tls/to-upstream.pem, key: tls/to-upstream.key}
  location: {provider: oci, region: us-ashburn-1, country: US}
identity:
  issuers:
    - kind: personnel
      subject_claim: sub
      issuer: https://idp.corp
      audience: customhouse
      jwks: {url: https://idp.corp/jwks.json, refresh: 5m, max_stale: 24h}
      algorithms: [ES256]
    - {kind: data_subject, issuer: https://users.corp, audience: app, jwks: {file: users.json}, algorithms: [RS256, EdDSA]}
  bind_to_workload: cnf
  directory: {file: people.snapshot, max_age: 1h}
  workloads:
    - {id: spiffe://corp/ns/ranker, operated_from: US, may: [read], acts_alone: true}
  revoked: {file: revoked.jsonl}
  leeway: 5s
describe:
  descriptors: {file: profiles.binpb}
  overlay: overlay.yaml
  unguarded: [grpc.health.v1.Health/*]
  reflection: identified
subjects: {index: us-subjects.idx, max_age: 24h}
policy: {bundle: {folder: policies/}, max_age: 7d}
decision: {engine: embedded, deadline: 50ms, cache: {entries: 65536}}
record:
  spool: /var/lib/customhouse/spool
  max_bytes: 8GiB
  ticket_pattern: '^[A-Z]+-\d+$'
  levels: {personnel: committed, workload: committed, data_subject: written, deny: written}
destination: {from: peer}
datasets: {file: datasets.jsonl}
exceptions: {grants: grants/, approvers: approvers.yaml}
admin: {socket: /run/customhouse/admin}
metrics: {listen: 127.0.0.1:9464}
holder: {name: Platform Inc., address: 1 Data Way, contact: privacy@platform.example}
oversight:
  address: oversight:9443
  keys: oversight:9444
  tls: {ca: tls/store-ca.pem, cert: tls/proxy.pem, key: tls/proxy.key}
  trust: trust.txt
  seal_key: store.pub
limits: {message: 4MiB, metadata: 16KiB, token: 8KiB, streams: 1024}
workers: 1
"""

OVERSIGHT = """
log: {origin: oversight.corp/log, key: keys/log.pem, interval: 1s}
storage: {sqlite: records.sqlite}
tiles: {folder: tiles}
listen:
  append: 0.0.0.0:9443
  keys: 0.0.0.0:9444
  query: '[::1]:9445'
  tls: {cert: tls/store.pem, key: tls/store.key, client_ca: tls/ca.pem}
producers: {file: producers.json}
secrets: {sealing_key: keys/seal.pem, key_encryption_key: keys/kek, database: keys.sqlite}
reviewers: {identities: [spiffe://corp/reviewer/ana]}
period_keys: {length: 30d, ahead: 2}
retention: {years: 10}
"""


def written(folder: Path, text: str | bytes, name: str = "sidecar.yaml") -> Path:
    file = folder / name
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def changed(key: str, value: Any, text: str = SIDECAR) -> str:
    """The example with the value at a dotted key replaced; `...` takes the key out."""
    tree = yaml.safe_load(text)
    *parents, last = [int(part) if part.isdigit() else part for part in key.split(".")]
    place = tree
    for parent in parents:
        place = place[parent] if isinstance(place, list) else place.setdefault(parent, {})
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return yaml.safe_dump(tree)


def refusal(file: Path, model: Any = SidecarSettings, environment: dict[str, str] | None = None) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load(file, model, environment or {})
    text = str(caught.value)
    assert "\n" not in text
    return text


def refused(folder: Path, key: str, value: Any) -> str:
    return refusal(written(folder, changed(key, value)))
