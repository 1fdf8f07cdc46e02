"""Campaigns of bad input: what an attacker sends by the hundred, at every door, with figures.

* `guarded`: an enforcement point with real identification, and every door before it (`doors`), in one process
* `tokens`: the table of token attacks at each of those doors
* `crowd`, `keys`, `streams`, `runaway`: a running sidecar under load that is not meant well, and its other callers
* `frames`, `mutations`: bytes that are no calls, and messages that are nearly right
* `figures`: what was measured, as a table

Short forms run in CI (`tests/fault/test_campaign_*.py`); `python -m tests.campaigns [NAME …] [--long]` prints the table.
"""
