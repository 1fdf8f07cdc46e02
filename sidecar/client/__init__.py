"""PEP, the caller's side: a typed client of the decision API (`sidecar.api.v1.DecisionPoint`).

It stands by itself: it loads grpc, protobuf and the generated messages, and nothing else of the sidecar.

==============  ====================================================================================================
``words``       questions, permits, denials, obligations, outcomes
``blocking``    `DecisionClient`, for ordinary code, and what its `guard` gives
``aio``         `AsyncDecisionClient`, the same for asyncio
``course``      one permitted call from permit to report
``duties``      meeting obligations on plain records
``connection``  addresses, mutual TLS, tries within a deadline
``attaching``   interceptors that say who asks and what for to a sidecar on the way (no part of the decision API)
``wire``        messages read so that whatever cannot be understood is a denial
==============  ====================================================================================================
"""

from sidecar.client.aio import AsyncDecisionClient, AsyncGuarded
from sidecar.client.blocking import DecisionClient, Guarded
from sidecar.client.connection import Tls
from sidecar.client.words import (
    OBLIGATIONS,
    AssertedPerson,
    Context,
    Denied,
    DeniedError,
    DropRecords,
    Entity,
    LimitRecords,
    MaskFields,
    MethodCall,
    Obligation,
    Outcome,
    Permit,
    RedactFields,
    Released,
    Reported,
    Token,
)

__all__ = [
    "OBLIGATIONS",
    "AssertedPerson",
    "AsyncDecisionClient",
    "AsyncGuarded",
    "Context",
    "DecisionClient",
    "Denied",
    "DeniedError",
    "DropRecords",
    "Entity",
    "Guarded",
    "LimitRecords",
    "MaskFields",
    "MethodCall",
    "Obligation",
    "Outcome",
    "Permit",
    "RedactFields",
    "Released",
    "Reported",
    "Tls",
    "Token",
]
