"""Dates on a page. No result depends on one."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

FORMAT = "%Y-%m-%d %H:%M UTC"


def now() -> datetime:
    """The present time; the only place where a page reads the clock."""
    return datetime.now(UTC)


def date_text(date: datetime) -> str:
    """A date to the minute, in UTC."""
    return date.astimezone(UTC).strftime(FORMAT)


def file_date(path: Path) -> str:
    """When a file was written."""
    return date_text(datetime.fromtimestamp(path.stat().st_mtime, UTC))
