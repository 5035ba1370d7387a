"""The names a user types: verb_DATASET, verb_DATASET_NETWORK, fetch_DATASET_NETWORK_checkpoint."""

for dataset_name in paper_datasets():
    if is_wanted(f"reproduce_{dataset_name}"):

        rule:
            name:
                f"reproduce_{dataset_name}"
            input:
                reproduce_target(dataset_name),
            localrule: True


for dataset_name in config_yaml_files.names("datasets"):
    for verb in DATA_VERBS:
        if is_wanted(f"{verb}_{dataset_name}"):

            rule:
                name:
                    f"{verb}_{dataset_name}"
                input:
                    target_input(verb, dataset_name),
                localrule: True

    for network_name in config_yaml_files.names("networks"):
        if is_wanted(f"fetch_{dataset_name}_{network_name}_checkpoint"):

            rule:
                name:
                    f"fetch_{dataset_name}_{network_name}_checkpoint"
                input:
                    checkpoint_target(dataset_name, network_name),
                localrule: True

        for verb in PAIR_VERBS:
            if is_wanted(f"{verb}_{dataset_name}_{network_name}"):

                rule:
                    name:
                        f"{verb}_{dataset_name}_{network_name}"
                    input:
                        target_input(verb, dataset_name, network_name),
                    localrule: True
