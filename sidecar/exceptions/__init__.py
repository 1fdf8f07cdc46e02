"""Signed objects: who may do for a time what a rule forbids.

`jws` signs and verifies them all. The operator's own rule: `grant` (exception grants and their revocations), `approvers`
(whose signatures count), `store` (a folder of grants, and which are in force for a person). The DSP, 28 CFR part 202:
`authorizations` (exemptions, licences, opinions), `attestations` (of the CISA requirements), `signers` (who may sign
which), `authorization_store` (their files, and what is in force for a call). Neither lifts the other's rule.
"""
