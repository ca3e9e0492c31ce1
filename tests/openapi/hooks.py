"""What schemathesis cannot make up by itself: pictures, and what a document cannot say."""

import itertools
import struct
import zlib

import schemathesis
from hypothesis import strategies as st


def png(width, height, shade):
    """A grey picture."""

    def chunk(kind, data):
        checksum = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + checksum

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = (b"\0" + bytes([shade]) * width) * height
    parts = chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def jpeg(width, height, comment):
    """A grey picture of one block, and a comment, so that no two need be the same."""

    def segment(marker, data):
        return bytes([0xFF, marker]) + struct.pack(">H", len(data) + 2) + data

    one_code = bytes([1] + [0] * 15) + b"\0"
    return b"".join((
        b"\xff\xd8",
        segment(0xFE, comment),
        segment(0xDB, b"\0" + bytes([1] * 64)),
        segment(0xC0, struct.pack(">BHHB", 8, height, width, 1) + bytes([1, 0x11, 0])),
        segment(0xC4, b"\0" + one_code),
        segment(0xC4, b"\x10" + one_code),
        segment(0xDA, bytes([1, 1, 0, 0, 63, 0])),
        # The block is one colour: both of its codes are a zero bit, the rest is padding.
        bytes([0b00111111]),
        b"\xff\xd9",
    ))


side = st.integers(min_value=1, max_value=8)
schemathesis.openapi.media_type("image/jpeg", st.builds(jpeg, side, side, st.binary(max_size=20)))
schemathesis.openapi.media_type("image/png", st.builds(png, side, side, st.integers(0, 255)))


# Each form that an answer has. The stream of a list would not end.
FORMS = {
    "GET /operations": itertools.cycle(["application/json", "text/html"]),
    "GET /operations/{id}": itertools.cycle(["application/json", "text/html", "text/event-stream"]),
    "GET /images/{id}": itertools.cycle(["*/*", "application/json"]),
}


@schemathesis.hook
def before_call(context, case, kwargs):
    """Makes requests that are right as good clients do; those that are wrong on purpose stay."""
    if not case.meta.generation.mode.is_positive:
        return
    headers = case.headers
    if case.operation.label == "POST /images" and isinstance(case.body, bytes):
        digest = zlib.crc32(case.body)
        # A key for another picture is another key: a key that is used again is refused, rightly.
        if "Idempotency-Key" in headers:
            headers["Idempotency-Key"] = f'"{zlib.crc32(headers["Idempotency-Key"].encode(), digest):x}"'
        # Of all the words that there are, the one that matters would come up too seldom.
        if "Prefer" in headers:
            headers["Prefer"] = ["respond-async", "respond-async, wait=1", headers["Prefer"]][digest % 3]
    if case.operation.label in FORMS:
        headers["Accept"] = next(FORMS[case.operation.label])
    # What a browser adds to the form of a page, and no other client should.
    if case.operation.label == "POST /operations/{id}/cancel":
        headers["Sec-Fetch-Site"] = "same-origin"
