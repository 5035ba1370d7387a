#!/bin/sh
# Prints the state of SGE job $1 in the words that Snakemake expects: running, success or failed.
# A job leaves `qstat` before `qacct` lists its exit status, and a job that is deleted while it waits
# never appears in `qacct`. A job that neither has listed for three minutes counts as failed.
state=$(qstat -u "$(id -un)" | awk -v id="$1" '$1 == id { print $5; exit }')
case $state in
*E*) # error state: SGE could not start the job, and keeps it until somebody clears it
    echo failed
    exit
    ;;
?*)
    echo running
    exit
    ;;
esac

ended=$(qacct -j "$1" 2>/dev/null | awk '$1 == "exit_status" || $1 == "failed" { print $2 }' | sort -u)
gone=.snakemake/sge_gone.$1
case $ended in
0) echo success ;;
?*) echo failed ;;
*)
    [ -e "$gone" ] || touch "$gone"
    if [ -n "$(find "$gone" -mmin +3)" ]; then echo failed; else echo running; fi
    exit
    ;;
esac
rm -f "$gone"
