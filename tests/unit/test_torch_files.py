"""Files of torch.save: what torch would read without its checksums is refused."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import torch

from retrace.checkpoints.torch_files import read_torch


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "weights.pt"
    torch.save({"weight": torch.arange(36.0)}, path)
    return path


def test_a_sound_file_is_read(saved: Path) -> None:
    assert torch.equal(read_torch(saved)["weight"], torch.arange(36.0))


def test_a_tensor_that_is_marked_as_a_folder_is_refused(saved: Path) -> None:
    content = bytearray(saved.read_bytes())
    record = content.rindex(b"weights/data/0")  # the last one is in the central directory
    content[record - 8] |= 0x10
    saved.write_bytes(content)
    with zipfile.ZipFile(saved) as archive:
        assert archive.testzip() is None

    with pytest.raises(ValueError, match="weights/data/0 is marked as a folder"):
        read_torch(saved)


def test_two_files_of_one_name_are_refused(saved: Path) -> None:
    with zipfile.ZipFile(saved, "a") as archive:
        archive.writestr("weights/DATA/0", bytes(144))

    with pytest.raises(ValueError, match="two files weights/DATA/0"):
        read_torch(saved)


def test_a_damaged_end_is_no_reason_to_skip_the_checksums(saved: Path) -> None:
    content = bytearray(saved.read_bytes())
    content[content.rindex(b"PK\x05\x06")] ^= 0xFF
    saved.write_bytes(content)

    with pytest.raises(zipfile.BadZipFile):
        read_torch(saved)
