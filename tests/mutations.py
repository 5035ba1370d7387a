"""Seeded changes of a file's bytes: truncated, flipped, swapped, of another type, a web page."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from typing import Any

WEB_PAGE = b"""<!DOCTYPE html>
<html><head><title>Sign in</title></head><body><form action="/login">User</form></body></html>
"""
PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\x02\0\0\0"
GIANT = (2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**64 - 1)
JSON_VALUES: tuple[Any, ...] = (
    *(None, True, False, "", "x", "../../x", "\u2028", -1, 0, 0.5, float("nan"), float("inf")),
    *(1e308, 2**31, 2**63, 2**64, 10**30, [], {}, [[]], [0], [-1, -1, -1], {"a": 1}, ["x"] * 3),
    json.loads("[" * 200 + "]" * 200),
)

Mutation = Callable[[bytes, random.Random], bytes]


def _place(content: bytes, rng: random.Random, most: int = 64) -> tuple[int, int]:
    """Begin and end of a short range of the content."""
    begin = rng.randrange(len(content) or 1)
    return begin, min(len(content), begin + rng.randint(1, most))


def _truncated(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content) or 1)]


def _flipped(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 8))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _swapped(content: bytes, rng: random.Random) -> bytes:
    one, other = sorted(rng.sample(range(len(content)), 2)) if len(content) > 1 else (0, 0)
    changed = bytearray(content)
    changed[one], changed[other] = changed[other], changed[one]
    return bytes(changed)


def _run_of(byte: int) -> Mutation:
    def mutated(content: bytes, rng: random.Random) -> bytes:
        begin, end = _place(content, rng)
        return content[:begin] + bytes([byte]) * (end - begin) + content[end:]

    return mutated


def _inserted(content: bytes, rng: random.Random) -> bytes:
    begin, _ = _place(content, rng)
    return content[:begin] + rng.randbytes(rng.randint(1, 16)) + content[begin:]


def _removed(content: bytes, rng: random.Random) -> bytes:
    begin, end = _place(content, rng)
    return content[:begin] + content[end:]


def _repeated(content: bytes, rng: random.Random) -> bytes:
    begin, end = _place(content, rng)
    return content[:end] + content[begin:end] + content[end:]


def _giant(content: bytes, rng: random.Random) -> bytes:
    """A number of 4 or 8 bytes becomes a huge one; mostly near the beginning, in headers."""
    size, order = rng.choice((4, 8)), rng.choice(("little", "big"))
    begin = rng.randrange(min(len(content), rng.choice((64, 10**9))) or 1)
    number = (rng.choice(GIANT) % 2 ** (8 * size)).to_bytes(size, order)  # type: ignore[arg-type]
    return content[:begin] + number + content[begin + size :]


BYTES: tuple[Mutation, ...] = (
    *(_truncated, _truncated, _flipped, _flipped, _flipped, _flipped, _swapped),
    *(_run_of(0), _run_of(255), _inserted, _removed, _repeated, _giant, _giant),
    *(lambda content, rng: b"", lambda content, rng: WEB_PAGE, lambda content, rng: PNG),
)


# ---------------------------------------------------------------- JSON and other text


def _places(value: Any) -> list[tuple[Any, Any]]:
    """All (container, key) pairs within a JSON value."""
    if isinstance(value, dict):
        own = [(value, key) for key in value]
    elif isinstance(value, list):
        own = [(value, index) for index in range(len(value))]
    else:
        return []
    return own + [place for container, key in own for place in _places(container[key])]


def _json_changed(content: bytes, rng: random.Random) -> bytes:
    """One value of a JSON text becomes another one, or of another type, or is removed."""
    value = json.loads(content)
    places = _places(value)
    if not places or rng.random() < 0.05:
        return json.dumps(rng.choice(JSON_VALUES)).encode()
    container, key = rng.choice(places)
    kind = rng.randrange(6)
    if kind == 0:
        del container[key]
    elif kind == 1 and isinstance(container, dict):
        container[f"{key}x"] = container.pop(key)
    elif kind == 2 and isinstance(container[key], int | float):
        container[key] += rng.choice((1, -1, 0.5, 10**6))
    elif kind == 3:
        container[key] = [container[key]] * rng.choice((1, 2, 5))
    else:
        container[key] = rng.choice(JSON_VALUES)
    return json.dumps(value).encode()


def _text_changed(content: bytes, rng: random.Random) -> bytes:
    """A line is removed, repeated or moved, or a number becomes another one."""
    lines = content.decode().splitlines(keepends=True)
    at = rng.randrange(len(lines))
    kind = rng.randrange(4)
    if kind == 0:
        del lines[at]
    elif kind == 1:
        lines.insert(rng.randrange(len(lines)), lines[at])
    elif kind == 2:
        values = ("-1", "0", "1e400", "9" * 30, "[", "nan", "{}", "x", "", '"', "- - -", "%")
        lines[at] = re.sub(r"[\w.]+(?=\W*$)", lambda _: rng.choice(values), lines[at], count=1)
    else:
        lines[at] = lines[at].replace(" ", rng.choice(("", "\t", "  ", ":")), 1)
    return "".join(lines).encode()


def _structured(content: bytes) -> Mutation | None:
    """The change that fits JSON or other text; None for other bytes."""
    try:
        text = content.decode()
        if not text.strip() or "\0" in text:
            return None
        json.loads(text)
    except UnicodeDecodeError:
        return None
    except ValueError:
        return _text_changed
    return _json_changed


def mutated(content: bytes, rng: random.Random) -> bytes:
    """Other bytes than `content`."""
    structured = _structured(content)
    for _ in range(100):
        change = structured if structured and rng.random() < 0.6 else rng.choice(BYTES)
        result = change(content, rng) if content else b"\0"
        if result != content:
            return result
    return content + b"\0"
