"""Signed exception grants: who may do for a day what the operator's own rule forbids.

`approvers` knows whose signatures count; `grant` parses, verifies and signs; `store` holds a folder of grants and
answers which of them are in force for a person. An exception lifts the operator's rule only, never the DSP.
"""
