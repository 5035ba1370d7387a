"""Properties of the legacy programs, checked without the legacy image."""

from __future__ import annotations

import ast
import importlib.util
import os
import stat
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

LEGACY = Path(__file__).resolve().parents[2] / "workflow" / "scripts" / "legacy"
SCRIPTS = sorted(LEGACY.glob("*.py"))

TENSORFLOW_1_3 = {
    *("add_n", "concat", "expand_dims", "float32", "identity", "placeholder", "slice", "squeeze"),
    *("transpose", "get_variable", "global_variables", "global_variables_initializer"),
    *("trainable_variables", "variable_scope", "zeros_initializer", "reset_default_graph"),
    "set_random_seed",
    *("ConfigProto", "Session", "VERSION", "losses.mean_squared_error"),
    *("nn.conv3d", "nn.conv3d_transpose", "nn.max_pool3d", "nn.relu", "nn.sigmoid"),
    *("test.is_built_with_cuda", "train.AdamOptimizer", "train.NewCheckpointReader"),
    *("train.Saver", "train.export_meta_graph", "train.import_meta_graph"),
}
"""Names that the wheel tensorflow_gpu-1.3.0-cp36 defines; each was looked up in its source, with
the arguments that these scripts give."""
ONLY_LATER = {"disable_eager_execution", "__version__"}
"""Reached only where `tensorflow.compat.v1`, or no `tf.VERSION`, shows that it is a later one."""


def dotted(node: ast.AST) -> str:
    """`tf.nn.relu` -> "nn.relu"; "" for what does not begin with tf."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join(reversed(parts)) if isinstance(node, ast.Name) and node.id == "tf" else ""


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_python_3_6_reads_it(path: Path) -> None:
    tree = ast.parse(path.read_text(), feature_version=(3, 6))
    futures = [
        n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module == "__future__"
    ]
    assert not futures


def test_only_what_tensorflow_1_3_has() -> None:
    used: set[str] = set()
    for path in SCRIPTS:
        names = {dotted(node) for node in ast.walk(ast.parse(path.read_text()))} - {""}
        # Of `tf.nn.relu` the walk also sees `tf.nn`.
        used |= {n for n in names if not any(other.startswith(n + ".") for other in names)}
    assert used - ONLY_LATER == TENSORFLOW_1_3


def test_only_numpy_tensorflow_and_the_standard_library_are_imported() -> None:
    own = {path.stem for path in SCRIPTS}
    for path in SCRIPTS:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                top = name.partition(".")[0]
                assert top in own | {"numpy", "tensorflow"} or top in sys.stdlib_module_names


@pytest.fixture
def gpu() -> ModuleType:
    """legacy/gpu.py, which imports no TensorFlow."""
    spec = importlib.util.spec_from_file_location("legacy_gpu", LEGACY / "gpu.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pretend(folder: Path, *lines: str, status: int = 0) -> None:
    """A fake nvidia-smi that prints these lines."""
    program = folder / "nvidia-smi"
    echoes = "".join(f"echo '{line}'\n" for line in lines)
    program.write_text(f"#!/bin/sh\n{echoes}exit {status}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in front of PATH, and no selection of GPUs."""
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return tmp_path


@pytest.mark.parametrize(
    "card", ["NVIDIA H100, 9.0", "Tesla V100-SXM2-16GB, 7.0", "GeForce RTX 2080 Ti, 7.5"]
)
def test_a_newer_card_is_refused_with_the_way_out(gpu: ModuleType, path: Path, card: str) -> None:
    pretend(path, card)
    with pytest.raises(SystemExit) as refused:
        gpu.check(True)
    message = str(refused.value)
    name, _, version = card.partition(", ")
    assert f"{name} (compute capability {version})" in message
    assert "CUDA 8" in message
    assert "engine: modern" in message


def test_a_supported_gpu_is_chosen_next_to_an_unsupported_one(
    gpu: ModuleType, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(path, "NVIDIA A100, 8.0", "Quadro P6000, 6.1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    gpu.check(True)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "1"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with pytest.raises(SystemExit, match="A100"):
        gpu.check(True)


def test_a_gpu_that_the_build_supports_is_accepted(gpu: ModuleType, path: Path) -> None:
    pretend(path, "Quadro P6000, 6.1")
    assert gpu.refusal(gpu.visible(gpu.cards())) is None


def test_the_gpu_build_needs_a_card_and_the_cpu_build_does_not(
    gpu: ModuleType, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(path, status=9)
    # Without a driver on this path, which a machine with a GPU would have.
    monkeypatch.setattr(gpu, "_from_driver", list)
    gpu.check(False)
    with pytest.raises(SystemExit, match="no graphics card is visible.*engine: modern"):
        gpu.check(True)


def test_an_old_nvidia_smi_defers_to_the_driver(
    gpu: ModuleType, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(path, 'Field "compute_cap" is not a valid field to query.', status=2)
    monkeypatch.setattr(gpu, "_from_driver", lambda: [("Tesla P40", (6, 1))])
    assert gpu.cards() == [("Tesla P40", (6, 1))]


def test_a_newer_card_ends_the_program_before_any_work(path: Path) -> None:
    """train.py as the rule calls it, with a TensorFlow that reports a build with CUDA."""
    pretend(path, "NVIDIA H100, 9.0")
    package = path / "tensorflow"
    package.mkdir()
    (package / "__init__.py").write_text(
        "class test:\n    is_built_with_cuda = staticmethod(lambda: True)\n"
    )
    program = "import sys; sys.path.insert(0, sys.argv[1]); import tf1; tf1.session()"
    done = subprocess.run(
        [sys.executable, "-c", program, str(LEGACY)],
        env={**os.environ, "PYTHONPATH": str(path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: NVIDIA H100 (compute capability 9.0)")
