"""What a program calls the settings of an array, so that messages name what the user can change."""

from __future__ import annotations

from dataclasses import dataclass, replace

NO_AXES = "save it again with the axes z, y, x"
"""What to do where no setting says what an axis is, or which channel is read."""


@dataclass(frozen=True)
class SettingNames:
    """Names of the settings of one array, and next steps; by default those of a dataset's config.

    Standard library only, because planning uses it too.
    """

    owner: str = "the dataset's config"
    inside: str = "in the dataset's config"
    voxel_size: str = "`voxel_size_nm`"
    offset: str = "`offset_nm`"
    region: str = "`roi_nm`"
    background: str = "`background_ids`"
    state_offset: str = (
        "add `offset_nm` to the source (nm, z y x; [0, 0, 0] for the first corner), or "
        "`auto_crop: true` to the volume if it is in the middle of the image"
    )
    state_axes: str = "add the setting `axes` with a letter for each stored axis (tczyx)"
    choose_channel: str = "choose one `channel`, or save it as its own array"
    separate_objects: str = (
        "`objects: cells` (0 on membranes) or `objects: membranes` (0 off membranes) numbers the "
        "objects of each section"
    )

    def written(self, key: str, values_nm: object) -> str:
        """A setting and its value in nm, as a statement in messages."""
        return f"{key} {values_nm} nm {self.inside}".rstrip()

    def setting(self, key: str) -> str:
        """A setting, and where it is."""
        return f"{key} {self.inside}".rstrip()


CONFIG = SettingNames()
"""Of a source in a dataset's config."""


def option_names(
    offset: str, name: str = "", *, axes: str = NO_AXES, channel: str = NO_AXES, objects: str = ""
) -> SettingNames:
    """The names of a program with --voxel-size-nm, and the option `offset` for the position.

    `name`: of the array, if the option names it, as in --segmentation-offset-nm NAME=z,y,x. `axes`,
    `channel`, `objects`: next steps, where the program has options for them.
    """
    return SettingNames(
        owner="the command line",
        inside="on the command line",
        voxel_size="--voxel-size-nm",
        offset=offset,
        region="--roi-nm",
        background="--background-id",
        state_offset=(
            f"state it with {offset} {name and f'{name}='}z,y,x (nm; 0,0,0 for the first corner), "
            "or with the attribute `offset` of the array"
        ),
        state_axes=axes,
        choose_channel=channel,
        separate_objects=objects,
    )


def measured_by(names: SettingNames, voxel_size: str) -> SettingNames:
    """The names of an array whose voxel size comes from elsewhere than from a setting of its own.

    `voxel_size`: what it is called there, such as "the image's voxel size".
    """
    return replace(names, voxel_size=voxel_size, inside="")
