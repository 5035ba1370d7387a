"""TensorFlow checkpoints round trip, whatever they contain."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from retrace.checkpoints.tensorflow import DTYPES, open_bundle, write_tensor_bundle
from retrace.errors import DataError

arrays = st.dictionaries(
    st.text("abc/_019", min_size=1, max_size=40),
    st.sampled_from(list(DTYPES.values())).flatmap(
        lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=5, max_side=4))
    ),
    min_size=1,
    max_size=30,
)


@settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(arrays)
def test_written_tensors_read_back(tmp_path: Path, content: dict[str, np.ndarray]) -> None:
    write_tensor_bundle(tmp_path / "model", content)
    bundle = open_bundle(tmp_path / "model")
    assert set(bundle.entries) == set(content)
    for name, values in content.items():
        loaded = bundle.read(name)
        assert (loaded.dtype, loaded.shape) == (values.dtype, values.shape)
        assert loaded.tobytes() == values.tobytes()


def test_a_copy_of_a_real_checkpoint_has_the_same_data_bytes(
    shared_dir: Path, tmp_path: Path
) -> None:
    original = open_bundle(shared_dir / "oracles/lsd_tensorflow/train_net_checkpoint_2")
    values = {name: original.read(name) for name in original.entries}
    write_tensor_bundle(tmp_path / "copy", values)
    copy = open_bundle(tmp_path / "copy")
    assert copy.data_file(0).read_bytes() == original.data_file(0).read_bytes()
    assert copy.entries == original.entries


def test_a_dtype_tensorflow_lacks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="datetime64"):
        write_tensor_bundle(tmp_path / "model", {"when": np.zeros(2, "datetime64[s]")})
