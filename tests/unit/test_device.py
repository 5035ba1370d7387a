"""Devices and precisions."""

from __future__ import annotations

import ctypes
import mmap
from pathlib import Path

import pytest
import torch

from retrace import device
from retrace.errors import ConfigError, DeviceError


def test_auto_takes_a_gpu_only_where_there_is_one() -> None:
    assert device.choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert device.choose_device("cpu").type == "cpu"


def test_a_missing_gpu_is_an_error_only_when_asked_for() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(DeviceError, match="set `device` to `auto`"):
        device.choose_device("cuda")


def test_unknown_device_offers_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'cuda'"):
        device.choose_device("cudaa")


@pytest.mark.parametrize(("flags", "expected"), [("avx2 avx512_bf16", True), ("avx2 fma", False)])
def test_auto_uses_bf16_on_a_cpu_only_with_hardware_for_it(
    flags: str, expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text(f"flags : {flags}\n")
    monkeypatch.setattr(device, "CPU_INFO", info)
    cpu = torch.device("cpu")
    assert device.uses_bf16("auto", cpu) is expected
    assert device.uses_bf16("bf16", cpu)
    assert not device.uses_bf16("fp32", cpu)
    with pytest.raises(ConfigError, match="allowed"):
        device.uses_bf16("fp16", cpu)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU, as far as the choice of the device asks torch."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)


def test_a_gpu_computes_float32_exactly_and_tries_algorithms(gpu: None) -> None:
    assert device.choose_device("auto") == torch.device("cuda")
    assert not torch.backends.cudnn.allow_tf32  # convolutions would be 1e-3 off
    assert torch.backends.cudnn.benchmark


@pytest.mark.parametrize(
    ("found", "compilers", "missing"),
    [
        (None, ("gcc",), "triton"),
        (object(), (), "a C compiler (gcc)"),
        (object(), ("clang",), None),
    ],
)
def test_auto_compiles_where_a_gpu_has_what_that_needs(
    found: object,
    compilers: tuple[str, ...],
    missing: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(device, "find_spec", lambda name: found)
    monkeypatch.setattr(device.shutil, "which", lambda name: name if name in compilers else None)
    monkeypatch.setattr(device.sysconfig, "get_paths", lambda: {"include": str(tmp_path)})
    (tmp_path / "Python.h").touch()

    assert device.uses_compile("auto", torch.device("cuda")) is (missing is None)
    assert (f"not compiled: {missing} is missing" in capsys.readouterr().out) is bool(missing)
    assert device.uses_compile(True, torch.device("cuda"))

    (tmp_path / "Python.h").unlink()
    assert not device.uses_compile("auto", torch.device("cuda"))


def test_auto_does_not_compile_on_a_cpu() -> None:
    assert not device.uses_compile("auto", torch.device("cpu"))
    assert device.uses_compile(True, torch.device("cpu"))
    with pytest.raises(ConfigError, match="allowed: auto"):
        device.uses_compile("yes", torch.device("cpu"))


@pytest.mark.skipif(
    not Path("/sys/kernel/mm/transparent_hugepage").exists(), reason="no huge pages here"
)
def test_memory_that_is_reserved_gets_huge_pages() -> None:
    with mmap.mmap(-1, 4 * device.HUGE_PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        begin = ctypes.c_char.from_buffer(memory)
        place = ctypes.addressof(begin)
        del begin
        assert "hg" not in _flags_of(place)
        device.use_huge_pages()
        assert "hg" in _flags_of(place)


def _flags_of(place: int) -> list[str]:
    """What the kernel was advised for the memory at an address (VmFlags of proc(5))."""
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first = line.split()[0]
        if "-" in first:
            low, high = (int(edge, 16) for edge in first.split("-"))
            inside = low <= place < high
        elif inside and first == "VmFlags:":
            return line.split()[1:]
    raise AssertionError("no such memory")
