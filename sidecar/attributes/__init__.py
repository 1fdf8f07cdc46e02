"""Policy information point (PIP): who asks, what is reached, and whose data it is.

Who asks (stage 2): `subject` identifies the caller from `tokens` (JWT; `claims` types what they say, `jwks` holds the
keys that `keysource` fetches, `revoked` the revocation list), `peers` (client certificates, SPIFFE, registered
workloads) and `directory` (personnel); `coverage` holds the words about covered persons.

What is reached (stage 3): `resource` describes a call. What an API says of itself is read by `descriptors`,
`annotations` and `overlay` into `words`, checked by `coherence`, and worked out once into `plans` and `reach`;
`messages` (`wire`: as the bytes it is), `presence` and `holdings` (by subject) look at one message; `datasets` knows
populations; `subjects_index` and `countries` say who is a US data subject.

Files that are exchanged while we run: `snapshots` is their format, `hashes` how ids are found in one, `followed` reads
it again.
"""
