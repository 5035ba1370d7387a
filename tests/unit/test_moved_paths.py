"""The dataset of a bundle names the copies of its files; nothing else in its file changes."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from retrace.provenance import bundle_writer

DATASET = """\
# the volumes of the lab
name: mine  # raw, a, labels
voxel_size_nm: [8.00, 8, 8e0]
volumes:
  a:
    raw: {path: &raw %s, array: raw}   # raw
    labels: {path: "labels", array: labels}
  raw: {raw: {path: *raw, array: a}}
  streamed: {raw: {path: "precomputed://file://%s"}, skeletons: './a//b.json'}
train: [a, raw]
"""


@pytest.mark.parametrize("raw", ["raw", "a", "labels", "mine", "train", "it's, {raw}: #1"])
def test_a_bundle_changes_the_paths_of_a_dataset_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raw: str
) -> None:
    """Files may be called like keys, values and the dataset."""
    monkeypatch.chdir(tmp_path)
    layer = tmp_path / "elsewhere" / "raw"
    for file in (Path(raw), Path("labels"), Path("a/b.json"), layer / "info"):
        if not file.exists() and not any(above.is_file() for above in file.parents):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"content of {file}")
    own = [path for path in (Path(raw), Path("labels"), Path("a/b.json"), layer) if path.exists()]
    Path("config/datasets").mkdir(parents=True)
    written = f"'{raw.replace(chr(39), chr(39) * 2)}'" if "'" in raw else raw
    Path("config/datasets/mine.yaml").write_text(DATASET % (written, layer))
    before = yaml.safe_load(Path("config/datasets/mine.yaml").read_text())
    moved = bundle_writer.put_data(own, Path("packed"))
    bundle_writer.put_code(Path("packed"), moved, "mine")
    text = Path("packed/config/datasets/mine.yaml").read_text()
    after, volumes = yaml.safe_load(text), before["volumes"]
    for volume in ("a", "raw"):
        volumes[volume]["raw"]["path"] = moved[raw]
    volumes["a"]["labels"]["path"] = moved["labels"]
    volumes["streamed"]["raw"]["path"] = f"precomputed://file://{moved[str(layer)]}"
    volumes["streamed"]["skeletons"] = moved.get("a/b.json", "./a//b.json")
    assert after == before
    assert "# the volumes of the lab" in text and "[8.00, 8, 8e0]" in text
    assert (Path("packed") / moved[raw]).read_text() == f"content of {raw}"
