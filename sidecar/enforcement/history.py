"""What of the log's history is kept beside the segments: its largest checkpoint, and the evidence if there are two."""

import asyncio
import threading
from pathlib import Path

from sidecar.spool.files import Files, PosixFiles, keep_spare, replace_durably

_NOTE_RESERVE = 8192


class KeptHistory:
    """The files of one slot. Whatever is on disk survives a crash, and a disk that was full when it was due."""

    def __init__(self, folder: Path, files: Files | None = None) -> None:
        self._files = files or PosixFiles()
        self.checkpoint, self.evidence = folder / "checkpoint", folder / "split-view.txt"
        self._newest = b""
        self._shown = False
        self._writing = threading.Lock()

    def read(self) -> bytes | None:
        """The checkpoint that was kept last; None when none was."""
        try:
            return self.checkpoint.read_bytes()
        except FileNotFoundError:
            return None

    async def keep(self, note: bytes) -> None:
        """Keep this checkpoint, larger than all before; it, or a larger one, is durable when this returns. OSError.

        A thread that an earlier, cancelled call left writing is waited for: it never puts an older note in its place.
        """
        self._newest = note
        await asyncio.to_thread(self._write)

    def _write(self) -> None:
        with self._writing:
            replace_durably(self._files, self.checkpoint, self._newest)
            keep_spare(self._files, self.checkpoint, _NOTE_RESERVE)

    def show(self, notes: tuple[bytes, bytes]) -> str:
        """Keep two checkpoints that contradict each other, the first such pair; where, or why they could not be kept."""
        if not self._shown:
            try:
                replace_durably(self._files, self.evidence, b"\n".join(notes))
            except OSError as error:
                return f"not kept: {self.evidence}: {error.strerror}"
            self._shown = True
        return str(self.evidence)
