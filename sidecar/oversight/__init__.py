"""The oversight store: takes in what sidecars record, makes it provable, and answers reviewers (an audit log service).

It runs apart from the sidecars, with its own keys and operator, and loads nothing of theirs. A record's way:

    service -> ingest -> committer -> sequencer -> storage        accepted: durable, indexed, promised
            -> integrator -> tiles -> receipts                    published: in a signed checkpoint, provable
            -> openings -> keys, search                           findable, after the commit

=====================  ================================================================================================
module                 does
=====================  ================================================================================================
``ingest``             checks a signed batch: signature, root, leaves, bodies, chain
``sequencer``          gives records their indices; keeps gaps, equivocations and epochs' heads
``committer``          puts waiting batches into one transaction
``storage``            the port and its types; ``sqlite`` (with ``sqlite_transaction``, ``sqlite_rows`` and ``schema``)
                       is the implementation for one machine
``integrator``         committed leaves -> tiles -> signed checkpoint; recovers after a crash
``tiles``              the public folder (C2SP tlog-tiles)
``receipts``           proofs for producers that their records are published
``openings``           openings of data subjects: opened, checked, put under one key for each subject
``keys``, ``periods``  the key database: pseudonym keys of periods, keys of subjects; erasure
``search``, ``extract``  the derived database that finds records
``completeness``       what is missing, doubled, silent
``producers``          who may append
``journal``            the store's own records, through the same door
``append``, ``query``, ``key_service``, ``wire``  gRPC; nothing else here knows it
``publisher``          when to integrate, and who waits for checkpoints
``main``               the composition root
=====================  ================================================================================================

What it is trusted with: to keep what it acknowledged. Not trusted: everything it says can be checked against signed
batches, published tiles and checkpoints. What it cannot show: calls that never met a sidecar.
"""
