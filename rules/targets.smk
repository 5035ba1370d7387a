"""The names a user types: verb_DATASET, verb_DATASET_NETWORK, fetch_DATASET_NETWORK_checkpoint, train_znn."""

from retrace.planning.targets import check_requested, wanted_targets
from retrace.planning.znn_runs import check_words

refusing(check_words, PLANNER.config, command_line_words())
refusing(check_requested, ROOT)
refusing(PLANNER.check_named_files, command_line_words())

for target, files in refusing(list, wanted_targets()):

    rule:
        name:
            target
        input:
            target_files(files),
        localrule: True
