"""Where the examples of a dataset such as MNIST are read from, and how they are divided."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from retrace.setting_types import AnyText, Count, InWords, Text, WholeFrom0
from retrace.settings_model import SettingsModel

Sha256 = Annotated[
    str, Field(pattern="^[0-9a-f]{64}$"), InWords("a SHA-256 of 64 hexadecimal digits")
]
Url = Annotated[str, Field(pattern="^https?://"), InWords("an address that begins with https://")]
FileName = Annotated[
    Text,
    Field(pattern="^[A-Za-z0-9][A-Za-z0-9_.-]*$"),
    InWords("a file name of letters, digits, _, . and -, a letter or digit first"),
]
ImageShape = Annotated[
    tuple[Count, ...],
    Field(min_length=2, max_length=3),
    InWords("a list of 2 or 3 whole numbers of at least 1 ([28, 28])"),
]


class ExampleArray(SettingsModel):
    """One array of a file."""

    path: Text = Field(
        description="IDX file (also .gz), .npy or .h5, relative to the working directory."
    )
    array: AnyText = Field("", description="Array within an h5.")


class LabelledArrays(SettingsModel):
    """Examples and their classes."""

    values: ExampleArray = Field(
        description="(N, y, x), (N, channels, y, x) or (N, features); integers are divided by 255."
    )
    labels: ExampleArray = Field(description="(N,) integers.")


class ExamplesFetch(SettingsModel):
    """Where `fetch_DATASET` downloads the files that belong in data/DATASET."""

    url: Url = Field(description="Address of the folder.")
    sha256: dict[FileName, Sha256] = Field(description="SHA-256 by file name.")


class ExamplesSource(SettingsModel):
    """Where the examples are, and how they are divided."""

    classes: Annotated[int, Field(strict=True, ge=2)] = Field(
        description="Number of classes; labels are 0 to classes - 1."
    )
    train: LabelledArrays | None = Field(
        None, description="What is trained on, except the held-out examples."
    )
    test: LabelledArrays | None = Field(
        None, description="What is scored at the end. Absent: the held-out examples."
    )
    archive: ExampleArray | None = Field(
        None,
        description="Instead of train and test: a pickled ((train, labels), (validation, labels), "
        "(test, labels)), such as mnist.pkl.gz. It is read without executing code.",
    )
    held_out: Count | None = Field(
        None,
        description="Number of training examples that are held out; the validation error is "
        "measured on them.",
    )
    split_seed: WholeFrom0 = Field(
        0,
        description="Seed that chooses the held-out examples, independent of the training seed.",
    )
    labelled: Count | None = Field(
        None,
        description="Number of training examples whose labels are used; an autoencoder still "
        "learns from all. Absent: all.",
    )
    image_shape: ImageShape | None = Field(
        None, description="Shape of vectors as images, (y, x) or (channels, y, x)."
    )
    fetch: ExamplesFetch | None = Field(
        None, description="Where `fetch_DATASET` downloads the files that belong in data/DATASET."
    )

    @model_validator(mode="after")
    def _are_complete(self) -> Self:
        if (self.archive is None) == (self.train is None):
            raise ValueError("give either `archive`, or `train` (and `test`)")
        if self.train is not None and self.held_out is None:
            raise ValueError(
                "`held_out` is needed, the number of training examples that are kept to measure "
                "the error on; for MNIST 5000"
            )
        return self
