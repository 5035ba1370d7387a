"""The names a user types: verb_DATASET and verb_DATASET_NETWORK."""

for dataset_name in catalog.names("datasets"):
    for verb in DATA_VERBS:

        rule:
            name:
                f"{verb}_{dataset_name}"
            input:
                target_input(verb, dataset_name),
            localrule: True

    for network_name in catalog.names("networks"):
        for verb in PAIR_VERBS:

            rule:
                name:
                    f"{verb}_{dataset_name}_{network_name}"
                input:
                    target_input(verb, dataset_name, network_name),
                localrule: True
