"""The setting `normalize` of an image, and what to add to a dataset's file without it.

Networks read uint8, or float in [0, 1], in which membranes are dark. Standard library and pydantic
only, because planning uses it too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Self

from pydantic import Field, model_validator

from retrace.setting_types import Flag, InWords, Number, Range
from retrace.settings_model import SettingsModel

PERCENTILES = (1, 99)
"""Percentiles of the stored values that usually become black and white."""

Percentile = Annotated[Number, Field(ge=0, le=100)]
Percentiles = Annotated[
    tuple[Percentile, Percentile], InWords("two percentiles, 0 to 100 ([1, 99])")
]


class Normalize(SettingsModel):
    """How stored values v become grey values: (v - low) / (high - low), cut to 0 and 1."""

    range: Range | None = Field(
        None,
        description="Stored values that become black and white, [low, high]. The image is read as "
        "uint8: low and below become 0, high and above 255.",
    )
    percentiles: Percentiles | None = Field(
        None,
        description="As `range`, with percentiles of all stored values in place of the values. "
        "Each job reads the whole volume once to measure them, also from an address; the values "
        "are in the job's record.",
    )
    invert: Flag | None = Field(
        None,
        description="Whether black and white are swapped. Needed for files that say that 0 is "
        "white (tif: MinIsWhite). Alone, it keeps the type: uint8, or float in [0, 1]. Absent: "
        "false.",
    )

    @model_validator(mode="after")
    def _is_one_range(self) -> Self:
        if self.range is not None and self.percentiles is not None:
            raise ValueError("has `range` and `percentiles`; keep one of them")
        if not self.scales and self.invert is None:
            raise ValueError("is empty; give `range`, `percentiles` or `invert`, or leave it out")
        for name, pair in (("range", self.range), ("percentiles", self.percentiles)):
            if pair is not None and not pair[0] < pair[1]:
                raise ValueError(f"`{name}: {list(pair)}` must be two numbers, the lower one first")
        return self

    @property
    def scales(self) -> bool:
        """Whether stored values of any number type become uint8."""
        return self.range is not None or self.percentiles is not None


def as_setting(
    value_range: Sequence[float] | None, invert: bool | None = None, percentiles: object = None
) -> str:
    """The line of a dataset's file, such as `normalize: {range: [1024, 40960]}`."""
    parts = []
    if value_range is not None:
        parts.append(f"range: [{', '.join(map(decimals, value_range))}]")
    elif percentiles is not None:
        parts.append(f"percentiles: {list(percentiles)}")  # type: ignore[call-overload]
    if invert is not None:
        parts.append(f"invert: {'true' if invert else 'false'}")
    return f"`normalize: {{{', '.join(parts)}}}`"


def decimals(value: float) -> str:
    """A number with four digits as YAML reads it, without an exponent; whole ones exactly."""
    if float(value).is_integer() and abs(value) < 1e15:
        return str(int(value))
    text = f"{float(f'{value:.4g}'):.12f}" if abs(value) < 1e12 else f"{value:.0f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def is_grey_type(dtype: str) -> bool:
    """Whether networks may read values of this type, by its name, as they are stored."""
    return dtype == "uint8" or dtype.startswith("float")


def needs_normalize(
    what: str, settings: Normalize | None, sample: Sequence[float] | None = None
) -> str:
    """The message for an image that networks cannot read as it is stored.

    `what`: the file and its values. `sample`: percentiles 1 and 99 of some of its blocks.
    """
    invert = None if settings is None else settings.invert
    whole = as_setting(None, invert, PERCENTILES)
    if sample is None:
        add = f"{whole} (black and white at percentiles 1 and 99 of the whole volume)"
    else:
        add = (
            f"{as_setting(sample, invert)} (black and white at percentiles 1 and 99 of some of its "
            f"blocks), or {whole}, which measures them on the whole volume"
        )
    return f"{what}; raw must be uint8, or float in [0, 1]. Add to it in the dataset's file: {add}"


def needs_channel(name: str) -> str:
    """The message for an image that was saved in colours, which are read as ids."""
    return (
        f"{name} has colours (RGB of 8 bits), which are for labels; raw must be grey. Add "
        "`channel: 0` to it in the dataset's file, which reads red: all of a grey image that was "
        "saved as RGB"
    )


def needs_polarity(name: str, settings: Normalize | None, *, is_grey: bool) -> str:
    """The message for an image whose file says that 0 is white, without a decision about it.

    `is_grey`: whether its type needs no range.
    """
    usual = Normalize(invert=True) if is_grey else Normalize(percentiles=PERCENTILES)
    scale = usual if settings is None else settings
    lines = {invert: as_setting(scale.range, invert, scale.percentiles) for invert in (True, False)}
    return (
        f"{name} says that 0 is white (MinIsWhite), and networks expect dark membranes. Add to it "
        f"in the dataset's file: {lines[True]} reads the image as viewers of tifs show it, black "
        f"and white swapped; {lines[False]} reads the stored values, for files in which membranes "
        "are stored dark and only this entry is wrong"
    )
