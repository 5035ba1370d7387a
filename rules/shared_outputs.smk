"""Outputs in folders that several runs may share: Snakemake leaves them alone; no rules here.

When a job fails, Snakemake restores its previous outputs from copies, or removes the outputs. Meanwhile
another run may have finished them. Programs that write into these folders replace their outputs only by
complete ones, so Snakemake has nothing to restore.
"""


def is_shared(path: Any) -> bool:
    """Whether an output may be in a folder of several runs."""
    parts = Path(path).parts
    return parts[0] == "data" or parts[-3:-1] == ("containers", "images")


@cache
def keep_shared_outputs() -> None:
    """Stops Snakemake from copying, restoring and removing shared outputs."""
    persistence = workflow.persistence
    backup, restore = persistence.backup_output, persistence.restore_output

    def backup_own(path: Path) -> None:
        if not is_shared(path):
            backup(path)

    def restore_own(path: Path) -> bool:
        return path.exists() if is_shared(path) else restore(path)

    persistence.backup_output, persistence.restore_output = backup_own, restore_own
