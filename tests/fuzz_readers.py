"""All readers that tests/fuzzing.py tries."""

from __future__ import annotations

from fuzz_files import file_readers
from fuzz_records import record_readers
from fuzz_volumes import volume_readers

READERS = [*volume_readers(), *file_readers(), *record_readers()]
