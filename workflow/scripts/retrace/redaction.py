"""Hides credentials in text before it is shown, stored or packed.

Known secrets (in the environment, and those that a client of a server uses) are hidden wherever
they occur; others by their place: in an address, in a header, after a name such as `password`.
Standard library only.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any, cast
from urllib.parse import quote

HIDDEN = "[hidden]"
WITH_CREDENTIALS = (
    "the address has a user, a password or a signature in it, and every result would record it; "
    "remove it. For S3, credentials belong in the environment or ~/.aws/credentials "
    "(`unsigned: false`); from other servers, download the data and name the folder"
)
"""Why an address with credentials is refused, and what to do."""
SHORTEST_SECRET = 8
"""Characters of the shortest secret that is hidden wherever it occurs: a word may be one, too."""

VARIABLE = re.compile(
    r"SECRET|TOKEN|PASSW|PWD_|CREDENTIAL|SIGNATURE|(?:API|ACCESS|PRIVATE)_?KEY|AUTH(?!OR)", re.I
)
"""Part of the name of an environment variable that holds a secret, unless its value is a path."""
_PARAMETER = (
    r"[\w.%-]{0,64}(?:secret|token|passw|passphrase|pwd|signature|credential|session|authorization"
    r"|api-?_?key|access-?_?key|private-?_?key|key-?_?pair)[\w.%-]{0,64}|sig|key|auth|pass|code|policy"
)
"""Names in the query of an address whose values give access."""
_NAMED = (
    r"(?:secret|access|private|api)[_-]?(?:access[_-]?)?key(?:[_-]?id)?|password|passwd|passphrase"
    r"|(?:session|security|access|refresh|id)[_-]token|client[_-]secret"
)
"""Names of secrets in configurations and lists of variables."""
_HEADER = r"authorization|proxy-authorization|cookie|set-cookie|x-amz-security-token"
LONGEST = 4096
"""Characters of the longest user or password of an address that is looked for."""
_USER_INFO = re.compile(
    rf"(?<=://)(?:[^\s/\"'<>]{{0,{LONGEST}}}"
    rf"|[^\s/:\"'<>]{{1,{LONGEST}}}:(?!\d{{1,9}}(?:[/?#]|$)|//)[^\s\"'<>]{{0,{LONGEST}}})@"
)
"""USER:PASSWORD@ in an address; the password may contain characters that do not belong there. All
lengths are limited, because the time for long texts would grow with their square."""
_QUERY = re.compile(rf"([?&#](?:{_PARAMETER})=)[^&\s\"'<>#]+", re.I)
_PATTERNS = (
    (_USER_INFO, f"{HIDDEN}@"),
    (_QUERY, rf"\g<1>{HIDDEN}"),
    (
        re.compile(rf"\b((?:{_HEADER})\b[\"']?\s*[:=]\s*(?:b?[\"'])?)[^\"'\r\n}}]+", re.I),
        rf"\g<1>{HIDDEN}",
    ),
    (re.compile(r"\b((?:Credential|Signature)=)[^\s,&\"'<>]+"), rf"\g<1>{HIDDEN}"),
    (re.compile(r"\b(Bearer\s+)[\w.~+/=-]{8,}"), rf"\g<1>{HIDDEN}"),
    (
        re.compile(
            r"(<(?:\w*AccessKeyId|SecretAccessKey|SessionToken|Token|StringToSign\w*"
            r"|SignatureProvided|CanonicalRequest\w*)>)[^<]+"
        ),
        rf"\g<1>{HIDDEN}",
    ),
    (
        re.compile(rf"((?:{_NAMED})[\"']?\s*[=:]\s*(?:b?[\"'])?)[^\s\"',;&}}\[]+", re.I),
        rf"\g<1>{HIDDEN}",
    ),
    (re.compile(r"\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{12,}\b"), HIDDEN),
)

_known: set[str] = set()


def hide(*secrets: str | None) -> None:
    """Hides these values from now on wherever they occur, except None and short ones."""
    for secret in secrets:
        if secret is not None and len(secret) >= SHORTEST_SECRET:
            _known.update((secret, quote(secret, safe=""), quote(secret, safe="/")))


def redacted(text: str) -> str:
    """A text without the credentials in it."""
    text = without_known(text)
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def redacted_ends(text: str, most: int) -> str:
    """A text without the credentials in it, and without its middle if it is longer than `most`.

    Of a very long text, only its ends are searched. A credential that is cut is not recognised;
    therefore four times as much as the longest user and password is searched beyond what is shown,
    because hiding credentials also shortens the text.
    """
    half, cut = most // 2, 2 * LONGEST + 2
    searched = half + 4 * cut
    if len(text) <= 2 * searched:
        shown = redacted(text)
        return shown if len(shown) <= most else f"{shown[:half]} … {shown[-half:]}"
    begin, end = redacted(text[:searched])[:-cut], redacted(text[-searched:])[cut:]
    return f"{begin[:half]} … {end[-half:]}"


def without_known(text: str) -> str:
    """A text without known secrets; what only looks like a secret stays."""
    for secret in sorted({*_known, *_in_environment()}, key=len, reverse=True):
        if secret in text:
            text = text.replace(secret, HIDDEN)
    return text


def has_credentials(text: str) -> bool:
    """Whether a text contains an address with a user, a password or a signature in it."""
    return "://" in text and bool(_USER_INFO.search(text) or _QUERY.search(text))


def _in_environment() -> Iterator[str]:
    for name, value in os.environ.items():
        if len(value) >= SHORTEST_SECRET and VARIABLE.search(name) and not value.startswith("/"):
            yield value
            yield quote(value, safe="")
        elif "@" in value and (user := _USER_INFO.search(value)):
            password = user[0].partition(":")[2].removesuffix("@")
            if len(password) >= SHORTEST_SECRET:
                yield password


class _RedactedStream:
    """A stream of text that hides credentials in what is written to it."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(redacted(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def redacted_output() -> Iterator[None]:
    """Hides credentials in everything that this program prints, tracebacks included."""
    out, err = (cast(Any, _RedactedStream(stream)) for stream in (sys.stdout, sys.stderr))
    with redirect_stdout(out), redirect_stderr(err):
        yield
