"""Settings of a prediction: what is read, which network, and how it is computed and stored."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from retrace.config.any_network import VoxelNetwork
from retrace.config.schema import check
from retrace.config.workflow import Context
from retrace.errors import ConfigError, nearest
from retrace.formats.source import Region, Source
from retrace.setting_types import (
    DEFAULT_ZARR_FORMAT,
    Compile,
    Count,
    CpuLibrary,
    Device,
    Precision,
    Shape,
    Text,
    ZarrFormat,
)
from retrace.settings_model import NO_EFFECT, ONLY_TRAINED, SettingsModel


class PredictedVolume(SettingsModel):
    """The volume to predict, and the part of it."""

    raw: Source = Field(description="The image.")
    inputs: tuple[Source, ...] = Field((), description="Further images, in the network's order.")
    roi_nm: Region | None = Field(None, description="The part to predict, nm. None: all of it.")
    roi_of: Source | None = Field(
        None, description="Labels whose box is the part to predict, instead of `roi_nm`."
    )
    margin_nm: Context = Field(
        (0, 0, 0), description="How much larger the part is than the box of `roi_of`, nm (z, y, x)."
    )
    tissue_mask: Source | None = Field(None, description="0 where nothing is predicted.")


class PredictionSettings(SettingsModel):
    """How one volume is predicted."""

    not_decided_by: ClassVar[frozenset[object]] = frozenset({ONLY_TRAINED})

    volume: PredictedVolume
    descriptors: Source | None = Field(
        None, description="Predicted descriptors that the network reads."
    )
    network: VoxelNetwork = Field(description="The network, resolved for the dataset.")
    heads: tuple[Text, ...] | None = Field(
        None, description="Outputs that are stored. None: all of them."
    )
    tile: Literal["auto"] | Shape = Field(
        "auto", description="Output of one step, voxels (z, y, x); auto: what fits into memory."
    )
    dtype: Literal["uint8", "float32"] = Field(
        "uint8", description="How predictions are stored; uint8: 255 times the value, rounded down."
    )
    zarr_format: ZarrFormat = Field(
        DEFAULT_ZARR_FORMAT, description="Format of the store: 2, or 3 with shards."
    )
    device: Annotated[Device, NO_EFFECT] = Field("auto", description="Where the network runs.")
    precision: Precision = Field(
        "auto",
        description="Number format of the computation. auto: fp32 for stored float32, else bf16 if "
        "the device gains from it.",
    )
    compile: Annotated[Compile, NO_EFFECT] = Field(
        False,
        description="Whether torch compiles the network. auto: it does not, because tiles at the "
        "border have shapes of their own, and each shape would be compiled.",
    )
    cpu_library: Annotated[CpuLibrary, NO_EFFECT] = Field(
        "auto",
        description="What computes on a CPU. auto: OpenVINO, or torch where OpenVINO lacks "
        "something, and with `compile: true`.",
    )
    threads: Annotated[Count | None, NO_EFFECT] = Field(
        None, description="CPU threads. None: as torch chooses."
    )
    gpus: Annotated[Count, NO_EFFECT] = Field(
        1, description="GPUs among which the tiles are divided."
    )

    def stored_heads(self) -> dict[str, int]:
        """The channels of each output that is stored; ConfigError for an unknown one."""
        channels = {head.name: head.channels for head in self.network.heads}
        for name in self.heads or ():
            if name not in channels:
                raise ConfigError(
                    f"network {self.network.name!r} has no head {name!r}; {nearest(name, channels)}"
                )
        return {name: channels[name] for name in self.heads or channels}


class WholePredictionSettings(PredictionSettings):
    """How all of a volume is predicted, as the image that another network is trained on."""

    zarr_format: Annotated[ZarrFormat, NO_EFFECT] = Field(
        DEFAULT_ZARR_FORMAT,
        description="Format of a store that is written: 2, or 3 with shards; a prediction that is "
        "there keeps its own.",
    )


def read_prediction_settings(content: Any) -> PredictionSettings:
    """The settings in the JSON of a job; ConfigError names the setting, value and choice."""
    return check(PredictionSettings, content, "settings of the prediction")
