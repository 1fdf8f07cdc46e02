"""The rolling ledger: exact volumes by counterparty group over the preceding 12 months (28 CFR 202.205, 212, 232).

A service of its own, shared by all sidecars, and its client. `items` is what both sides say to each other.

The rules: `calendar` says which days count, `marks` what of a data subject is remembered and what it adds up to,
`counters` how many subjects stand in each category, `rolling` what reserving and settling do to all that.

Around them: `book` is the database, `secret` the key under which data subjects are named in it, `writer` the one thread
that writes (many requests to a commit), `service` the gRPC side, `certificates` its TLS, `main` the process, `client`
the sidecar's end. For operators: `inspection` (status, exposure, verification) and `backup`.
"""
