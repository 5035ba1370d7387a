"""The literal files of ZNN's AWS tutorial, and a folder laid out as its machine has them."""

from __future__ import annotations

from pathlib import Path

import tifffile

import tiny_znn as tiny

SEEDS = Path(__file__).resolve().parents[2] / "shared/seeds"
TUTORIAL = SEEDS / "znn_aws_tutorial.rst.txt"
SHAPE = (5, 56, 60)
"""Shape of the stack to train on; N4 sees 95 voxels, half of them mirrored at the border."""
FILES = {
    "dataset/ISBI2012/dataset.spec": "found in the ``dataset.spec`` file",
    "networks/N4.znn": "present in ``N4.znn``",
    "python/config.cfg": "present in ``config.cfg``",
}
"""Where a file lies in ZNN's folder, and the words before its text in the tutorial."""


def literal(words: str) -> str:
    """The indented block that follows a line with these words, as it is in the tutorial."""
    lines = TUTORIAL.read_text().splitlines()
    begin = next(n for n, line in enumerate(lines) if words in line)
    begin = next(n for n, line in enumerate(lines) if n > begin and line == "::") + 1
    end = next(n for n, line in enumerate(lines) if n > begin and line and line[0] != " ")
    return "\n".join(lines[begin:end]) + "\n"


def lay_out(folder: Path, **changes: str) -> Path:
    """ZNN's folders with the tutorial's literal files and tiny stacks; returns the .cfg.

    `changes`: parameters of the .cfg with another value.
    """
    for name, words in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(literal(words))
    raw, labels = tiny.cells(shape=SHAPE)
    for name, data in (("train-volume", raw), ("train-labels", labels), ("test-volume", raw[:2])):
        tifffile.imwrite(folder / f"dataset/ISBI2012/{name}.tif", data)
    cfg = folder / "python/config.cfg"
    isbi = {"fdata_spec": "../dataset/ISBI2012/dataset.spec"}
    cfg.write_text(with_values(cfg.read_text(), {**isbi, **changes}))
    return cfg


def with_values(text: str, values: dict[str, str]) -> str:
    """The text of a .cfg with other values of some of its parameters."""
    lines = text.splitlines()
    for name, value in values.items():
        (number,) = [n for n, line in enumerate(lines) if line.split("=")[0].strip() == name]
        lines[number] = f"{lines[number].split('=')[0]}= {value}"
    return "\n".join(lines) + "\n"
