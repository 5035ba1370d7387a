"""Trained weights on disk."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import tiny_training as tiny
from built_networks import built
from retrace.checkpoints.safetensors import load_model, read_archive, read_metadata, save_model
from retrace.config.any_network import of_family
from retrace.errors import DataError


@pytest.fixture
def model(tmp_path: Path) -> Path:
    settings = tiny.network()
    module = built(settings, seed=1)
    return save_model(tmp_path / "model.safetensors", module, {"network": settings, "iteration": 3})


def test_weights_and_metadata_round_trip(model: Path) -> None:
    fresh = built(tiny.network(), seed=2)
    metadata = load_model(model, fresh, of_family(tiny.network(min_masked=0.1)))
    saved = built(tiny.network(), seed=1).state_dict()
    assert all(torch.equal(tensor, saved[name]) for name, tensor in fresh.state_dict().items())
    assert metadata["iteration"] == 3
    assert read_metadata(model)["network"] == tiny.network()


def test_memory_layout_does_not_change_the_file(model: Path) -> None:
    module = built(tiny.network(), seed=1).to(memory_format=torch.channels_last_3d)
    other = save_model(model.with_name("b"), module, {"network": tiny.network(), "iteration": 3})
    assert other.read_bytes() == model.read_bytes()


def test_another_network_is_refused_by_both_names(model: Path) -> None:
    wider = tiny.network(name="wider", fmaps=5)
    with pytest.raises(DataError, match=r"'tiny_mtlsd' with fmaps 3; network 'wider' has fmaps 5"):
        load_model(model, built(wider), of_family(wider))


def test_truncated_absent_and_foreign_files_are_refused(model: Path) -> None:
    module = built(tiny.network())
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    model.write_bytes(model.read_bytes()[:-100])
    with pytest.raises(DataError, match="truncated"):
        load_model(model, module, of_family(tiny.network()))
    with pytest.raises(DataError, match="does not exist"):
        load_model(model.with_name("no.safetensors"), module, of_family(tiny.network()))
    model.write_text("hello")
    with pytest.raises(DataError, match="truncated"):
        read_metadata(model)
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def test_every_changed_byte_is_noticed(model: Path) -> None:
    whole, expected = model.read_bytes(), read_archive(model)
    for at in range(0, len(whole), 7):
        model.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        try:
            metadata, tensors = read_archive(model)
        except DataError as error:
            assert "\n" not in str(error) and "model.safetensors" in str(error)
            continue
        # The order of the tensors in the file, and white space, are no part of the content.
        assert metadata == expected[0] and tensors.keys() == expected[1].keys()
        assert all(torch.equal(tensor, expected[1][name]) for name, tensor in tensors.items())


def test_other_weights_under_the_same_digest_are_refused(model: Path) -> None:
    content = bytearray(model.read_bytes())
    content[-1] ^= 0x40
    model.write_bytes(content)

    with pytest.raises(DataError, match=r"its sha256 differs.*delete it and run the rule"):
        read_metadata(model)
    with pytest.raises(DataError, match="its sha256 differs"):
        load_model(model, built(tiny.network()), of_family(tiny.network()))


def test_files_of_earlier_versions_have_no_digest(model: Path) -> None:
    whole = model.read_bytes()
    size = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + size])
    del header["__metadata__"]["sha256"]
    header["__metadata__"]["format_version"] = "1"
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    model.write_bytes(len(text).to_bytes(8, "little") + text + whole[8 + size :])

    assert read_metadata(model)["iteration"] == 3
    header["__metadata__"]["format_version"] = "2"
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    model.write_bytes(len(text).to_bytes(8, "little") + text + whole[8 + size :])
    with pytest.raises(DataError, match="it lacks 'sha256'"):
        read_metadata(model)


def test_a_foreign_safetensors_file_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(2)}, tmp_path / "x.safetensors")
    with pytest.raises(DataError, match="not written by this version"):
        read_metadata(tmp_path / "x.safetensors")
