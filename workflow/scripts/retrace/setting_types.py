"""Types of settings: numbers with limits, triples in the order z, y, x, and names.

Text is never read as a number, nor a number as text. A whole number stays one where fractions are
allowed too, so that settings are written exactly as they were given.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    AllowInfNan,
    BeforeValidator,
    Field,
    Strict,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

from retrace.settings_model import SettingsModel


@dataclass(frozen=True)
class InWords:
    """How a message describes the values of a type: one of them, and several."""

    one: str
    several: str = ""


class WrittenWhole(int):
    """A whole number of a YAML file that is not written as Python writes it, such as 2024_01."""

    written: str

    def __new__(cls, value: int, written: str) -> WrittenWhole:
        number = super().__new__(cls, value)
        number.written = written
        return number

    def __reduce__(self) -> tuple[Any, ...]:
        return (WrittenWhole, (int(self), self.written))


class WrittenFraction(float):
    """A number of a YAML file that is not written as Python writes it, such as 1.50 or 1e-4."""

    written: str

    def __new__(cls, value: float, written: str) -> WrittenFraction:
        number = super().__new__(cls, value)
        number.written = written
        return number

    def __reduce__(self) -> tuple[Any, ...]:
        return (WrittenFraction, (float(self), self.written))


def _checked(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
    """The number as it was given, without the memory of how it was written."""
    check(value)
    if isinstance(value, WrittenWhole):
        return int(value)
    return float(value) if isinstance(value, WrittenFraction) else value


def as_written(value: Any) -> Any:
    """Text that YAML takes for a number, such as a volume's name 20190101; all else unchanged."""
    if isinstance(value, (WrittenWhole, WrittenFraction)):
        return value.written
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return str(value) if is_number else value


AS_GIVEN = WrapValidator(_checked)
"""Checks a number without changing 8 into 8.0; comes last in an Annotated type."""

Flag = Annotated[bool, Strict()]
"""true or false."""
Whole = Annotated[int, Strict()]
"""A whole number."""
WholeFrom0 = Annotated[int, Strict(), Field(ge=0)]
"""A whole number from 0."""
LabelId = Annotated[int, Strict(), Field(ge=-(2**63), le=2**64 - 1)]
"""An id in labels: a whole number of 64 bits, with or without a sign."""
Count = Annotated[int, Strict(), Field(ge=1)]
"""A whole number from 1."""
Number = Annotated[float, Strict(), AllowInfNan(False), AS_GIVEN]
"""Any number."""
NumberFrom0 = Annotated[float, Strict(), Field(ge=0), AllowInfNan(False), AS_GIVEN]
"""A number from 0."""
Positive = Annotated[float, Strict(), Field(gt=0), AllowInfNan(False), AS_GIVEN]
"""A number above 0."""
Fraction = Annotated[float, Strict(), Field(ge=0, le=1), AS_GIVEN]
"""A fraction or a probability: 0 to 1."""
Decay = Annotated[float, Strict(), Field(gt=0, lt=1), AS_GIVEN]
"""The decay of a running mean: between 0 and 1."""
DropoutRate = Annotated[float, Strict(), Field(ge=0, lt=1), AS_GIVEN]
"""The fraction that dropout drops: from 0, and below 1."""

Shape = tuple[Count, Count, Count]
"""A size in voxels or nm, or a factor, for each axis z, y, x; at least 1."""
Offset = tuple[Whole, Whole, Whole]
"""A step in voxels, or a position in nm, along z, y, x; may be negative."""
NmSize = tuple[Positive, Positive, Positive]
"""A voxel size, or edge lengths of a box, in nm along z, y, x; fractions such as 4.6 are exact."""
NmPosition = tuple[Number, Number, Number]
"""A position in nm along z, y, x; may be negative."""
Range = tuple[Number, Number]
"""The lowest and the highest value."""


def _rising(ends: tuple[float, float]) -> tuple[float, float]:
    if ends[0] > ends[1]:
        raise ValueError(f"{list(ends)}: the lowest value comes first")
    return ends


RangeFrom0 = Annotated[
    tuple[NumberFrom0, NumberFrom0],
    AfterValidator(_rising),
    InWords("a list of the lowest and the highest value, both at least 0"),
]
"""The lowest and the highest value of a random number from 0."""
PositiveRange = Annotated[
    tuple[Positive, Positive],
    AfterValidator(_rising),
    InWords("a list of the lowest and the highest value, both above 0"),
]
"""The lowest and the highest value of a random number above 0."""

Name = Annotated[
    str,
    Field(pattern=r"^[a-z][a-z0-9_]*$"),
    InWords("a name of lower-case letters, digits and _, a letter first"),
]
"""The name of a dataset or network: lower-case letters, digits and _, a letter first."""
AnyText = Annotated[str, BeforeValidator(as_written)]
"""Text, or a number of a YAML file, as text."""
Text = Annotated[str, Field(min_length=1), BeforeValidator(as_written)]
"""Text that is not empty, or a number of a YAML file, as text."""


class GrowBoundary(SettingsModel):
    """How touching objects get a boundary between them: each label is eroded."""

    steps: Count = Field(description="Erosion of each label, voxels.")
    only_xy: Flag = Field(description="Whether to erode within each section only, not across z.")


Device = Literal["auto", "cpu", "cuda"]
"""Where networks run; auto: on a GPU if there is one."""
Precision = Literal["auto", "fp32", "bf16"]
"""Number format of a computation; auto: bf16 if the device gains from it."""
Compile = Literal["auto", True, False]
"""Whether torch compiles a network; auto: if that saves time."""
CpuLibrary = Literal["auto", "torch"]
"""What computes predictions on a CPU; auto: OpenVINO, or torch where OpenVINO lacks something."""
ThresholdRule = Literal["least_voi", "smoothed", "one_standard_error", "bootstrap_median"]
"""How a threshold is chosen: retrace/evaluation/threshold_rules.py."""
ZarrFormat = Literal[2, 3]
"""Format of stores. 2: each chunk is a file. 3: chunks are in shards, so there are few files."""
DEFAULT_ZARR_FORMAT: ZarrFormat = 2
"""gunpowder opens format 2 only, and CloudVolume no shards: docs/decisions/0008."""
