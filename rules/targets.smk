"""The names a user types: verb_DATASET, verb_DATASET_NETWORK, fetch_DATASET_NETWORK_checkpoint, train_znn."""

from retrace.planning.targets import target_names, wanted_targets
from retrace.planning.unknown_targets import LISTING, check_named, named_words
from retrace.planning.znn_runs import check_words


def unknown_words() -> dict[str, set[str]]:
    """Words of the command line that name no target, rule or file, paths left out; the rules that each may name."""
    steps = {one.name for one in workflow.rules}
    whole = {one.name for one in workflow.rules if not one.has_wildcards()}
    words = named_words(command_line_options()).items()
    allowed = {word: whole if is_target else steps for word, is_target in words}
    return {
        word: rules
        for word, rules in allowed.items()
        if word not in rules | target_names()
        and "/" not in word
        and not Path(word).exists()
        and not is_written(word)
    }


refusing(check_words, PLANNER.config, command_line_words())
if workflow.is_main_process:
    refusing(check_named, PLANNER, unknown_words())
refusing(PLANNER.check_named_files, command_line_words())

if command_line_options().get("list_rules"):
    print(f"These are the steps; {LISTING}", file=sys.stderr)

# One rule for each target that the command line names. Where Snakemake's API starts a run, it may name any.
for target, files in refusing(
    wanted_targets, is_command_line=bool(command_line_options())
).items():

    rule:
        name:
            target
        input:
            target_files(files),
        localrule: True
