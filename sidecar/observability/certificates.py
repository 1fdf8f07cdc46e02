"""When the certificates of this process end."""

from collections.abc import Mapping
from pathlib import Path

from cryptography import x509

from sidecar.observability.metrics import Gauges


def not_after(path: Path) -> float:
    """The end of the first certificate's validity, unix seconds. OSError, or ValueError where there is none to read."""
    return x509.load_pem_x509_certificates(path.read_bytes())[0].not_valid_after_utc.timestamp()


def gauges(files: Mapping[str, Path]) -> Gauges:
    """For metrics: the certificates by what they are for, as their files are when somebody asks."""

    def read() -> dict[tuple[str, ...], float]:
        return {(name,): _end(path) for name, path in files.items()}

    return {"certificate_not_after_seconds": ("End of validity", read)}


def _end(path: Path) -> float:
    try:
        return not_after(path)
    except (OSError, ValueError):
        return 0.0  # long past, so that the alert for certificates about to end fires
