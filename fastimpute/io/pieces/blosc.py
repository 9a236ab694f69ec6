"""Chunks compressed by Blosc, looked at before they are decompressed.

The library believes the length that a chunk's header claims, and reads on behind a chunk that is shorter: a torn file
can end the process. Both versions of Zarr let a codec be registered in place of their own.
"""

from __future__ import annotations

import struct
from functools import cache
from typing import Any

import numcodecs
import zarr
from zarr.codecs import BloscCodec

QUALNAME = "fastimpute.io.pieces.blosc.CheckedBloscCodec"
HEADER_BYTES = 16
LENGTH = struct.Struct("<I")  # of the whole chunk, the last four bytes of the header


def check_length(chunk: bytes | memoryview) -> None:
    """Refuse a chunk that is not as long as its header says.

    Raises:
        ValueError: names both lengths.

    Example:
        >>> check_length(bytes(12) + (400).to_bytes(4, "little"))
        Traceback (most recent call last):
        ValueError: a chunk of 16 bytes is damaged: its Blosc header says 400
    """
    claimed = LENGTH.unpack_from(chunk, HEADER_BYTES - LENGTH.size)[0] if len(chunk) >= HEADER_BYTES else HEADER_BYTES
    if claimed != len(chunk):
        raise ValueError(f"a chunk of {len(chunk)} bytes is damaged: its Blosc header says {claimed}")


class CheckedBlosc(numcodecs.Blosc):  # type: ignore[misc]
    """Of version 2."""

    def decode(self, buf: Any, out: Any = None) -> Any:
        """As the class it stands for."""
        check_length(memoryview(buf).cast("B"))
        return super().decode(buf, out)


class CheckedBloscCodec(BloscCodec):
    """Of version 3."""

    async def _decode_single(self, chunk_bytes: Any, chunk_spec: Any) -> Any:
        check_length(chunk_bytes.to_bytes())
        return await super()._decode_single(chunk_bytes, chunk_spec)


@cache
def register() -> None:
    """Have all Zarr arrays opened from now on decompressed with that look."""
    numcodecs.register_codec(CheckedBlosc, "blosc")
    zarr.registry.register_codec("blosc", CheckedBloscCodec, qualname=QUALNAME)
    zarr.config.set({"codecs.blosc": QUALNAME})
