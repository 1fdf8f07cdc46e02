"""Between the generated messages and the store's own types, and what a peer's certificate says."""

from collections.abc import Iterable, Mapping

from google.protobuf.message import DecodeError

from sidecar.api.v1 import oversight_pb2 as pb
from sidecar.oversight.ingest import Header, RefusedError
from sidecar.oversight.receipts import ReceiptParts, Span
from sidecar.oversight.storage import Item

MOST_MESSAGE = 32 * 1024 * 1024
"""Largest batch: 256 records of 1 kB leaf, 64 kB body and the sealed openings of 500 subjects."""


def header_of(raw: bytes) -> Header:
    """The header in these signed bytes. RefusedError(bad_batch) if they are none."""
    try:
        header = pb.BatchHeader.FromString(raw)
    except DecodeError:
        raise RefusedError("bad_batch", "header is not a BatchHeader") from None
    return Header(raw=raw, producer=header.producer, slot=header.slot, epoch=header.epoch, first_seq=header.first_seq,
                  count=header.count, root=header.root, clock=header.clock)  # fmt: skip


def encode_header(header: Header) -> bytes:
    """The bytes of a header, for signing."""
    message = pb.BatchHeader(
        producer=header.producer, slot=header.slot, epoch=header.epoch, first_seq=header.first_seq, count=header.count,
        root=header.root, clock=header.clock,
    )  # fmt: skip
    data: bytes = message.SerializeToString(deterministic=True)
    return data


def items_of(items: Iterable[pb.Item]) -> list[Item]:
    """The batch's records."""
    return [
        Item(leaf=item.leaf, salt=item.salt, body=item.body, nonce=item.nonce, sealed=item.sealed_openings)
        for item in items
    ]


def range_of(span: Span) -> pb.Range:
    """A span for the wire."""
    return pb.Range(epoch=span.epoch, slot=span.slot, first_seq=span.first_seq, count=span.count,
                    first_index=span.first_index)  # fmt: skip


def receipt_of(receipt: ReceiptParts) -> pb.AppendResponse:
    """A receipt for the wire."""
    return pb.AppendResponse(
        receipt=pb.Receipt(range=range_of(receipt.span), checkpoint=receipt.checkpoint, proof=receipt.proof)
    )


def rejected(error: RefusedError, first_seq: int = 0) -> pb.AppendResponse:
    """A refusal for the wire."""
    return pb.AppendResponse(
        rejected=pb.Rejected(code=error.code, message=error.message, first_seq=first_seq, retry=error.retry)
    )


def identities(auth_context: Mapping[str, Iterable[bytes]]) -> frozenset[str]:
    """The subject alternative names (URI, DNS) of the peer's verified certificate; empty without mutual TLS."""
    names = auth_context.get("x509_subject_alternative_name", ())
    return frozenset(name.decode("utf-8", "replace") for name in names)
