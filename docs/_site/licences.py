"""Licences of packages, as identifiers of SPDX (spdx.org/licenses), from their metadata."""

from __future__ import annotations

import re
from collections.abc import Mapping
from email.message import Message
from importlib.metadata import PackageNotFoundError, metadata

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

ALLOWED = {
    *("0BSD", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD-2-Clause", "BSD-3-Clause"),
    *("BSL-1.0", "CC0-1.0", "CNRI-Python", "ISC", "LicenseRef-BSD", "LicenseRef-public-domain"),
    *("MIT", "MIT-0", "MIT-CMU", "PSF-2.0", "Unlicense", "W3C-20150513", "ZPL-2.1", "Zlib"),
}
"""They ask for no more than notices. LicenseRef-BSD: two or three clauses, the package says BSD."""
WEAK_COPYLEFT = {
    *("LGPL-2.0-or-later", "LGPL-2.1-or-later", "LGPL-3.0-only", "LGPL-3.0-or-later", "MPL-2.0"),
}
"""Changes of the package itself stay open; nothing is asked of a program that imports it."""
WORDS = {
    "Apache-2.0": "apache 2.0; apache license 2.0; apache license, version 2.0",
    "BSD-3-Clause": "bsd 3-clause license; 3-clause bsd license; bsd-3 clause",
    "LGPL-3.0-only": "lgpl-3.0",
    "LicenseRef-BSD": "bsd; bsd license",
    "MIT": "mit license",
}
"""How packages write licences in the field License."""
CLASSIFIERS = {
    "Apache Software License": "Apache-2.0",
    "BSD License": "LicenseRef-BSD",
    "GNU General Public License (GPL)": "LicenseRef-GPL",
    "GNU Lesser General Public License v2 or later (LGPLv2+)": "LGPL-2.0-or-later",
    "GNU Lesser General Public License v3 or later (LGPLv3+)": "LGPL-3.0-or-later",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Public Domain": "LicenseRef-public-domain",
    "Python Software Foundation License": "PSF-2.0",
}
"""The last words of classifiers of licences."""
Stated = Mapping[str, tuple[str, str]]


class UnknownLicenceError(Exception):
    """Metadata that name no licence, or one that is not in this module."""


def licence_of(name: str, stated: Stated, elsewhere: Stated) -> str:
    """The licence of a package that is installed, or listed in docs/_site/dependencies.yaml.

    UnknownLicenceError for one that is neither.
    """
    if name in stated:
        return stated[name][0]
    try:
        return licence_in(metadata(name))
    except PackageNotFoundError:
        if name in elsewhere:
            return elsewhere[name][0]
        missing = f"{name}: it is not installed and not listed in `elsewhere`"
        raise UnknownLicenceError(missing) from None


def licence_in(fields: Message) -> str:
    """What the metadata of a package state; several classifiers are joined by AND.

    The field License-Expression counts before License, and both before classifiers.
    """
    for written in (fields.get("License-Expression"), fields.get("License")):
        if written and (licence := _identifier(written)):
            return licence
    classifiers = [c.rpartition(" :: ") for c in fields.get_all("Classifier", [])]
    named = [last for first, _, last in classifiers if first.startswith("License")]
    named = [last for last in named if last not in ("OSI Approved", "DFSG approved")]
    unknown = [last for last in named if last not in CLASSIFIERS]
    if unknown or not named:
        text = (fields.get("License") or "none").strip().partition("\n")[0]
        raise UnknownLicenceError(
            f"{fields['Name']}: the field License is {text}, classifiers: {unknown or named}"
        )
    return " AND ".join(sorted({CLASSIFIERS[last] for last in named}))


def _identifier(written: str) -> str | None:
    """An expression of SPDX for it, or for the title of a whole licence; None for other text."""
    title = written.strip().partition("\n")[0].strip().lower()
    for identifier, words in WORDS.items():
        if title in words.split("; "):
            return identifier
    try:
        return canonicalize_license_expression(written)
    except InvalidLicenseExpression:
        return None


def identifiers(licence: str) -> list[str]:
    """The licences in an expression."""
    return [part for part in re.split(r" AND | OR |[()]", licence) if part.strip()]


def refused(licence: str) -> list[str]:
    """The licences in an expression that are not allowed."""
    return [one for one in identifiers(licence) if one not in ALLOWED | WEAK_COPYLEFT]
