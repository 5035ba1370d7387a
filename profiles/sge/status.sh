#!/bin/sh
# What SGE says of job $1, in the words that Snakemake reads: running, success or failed.
# A job leaves `qstat` before `qacct` knows how it ended, and one deleted while it waited never comes
# into `qacct`: what neither has known for three minutes has failed.
state=$(qstat -u "$(id -un)" | awk -v id="$1" '$1 == id { print $5; exit }')
case $state in
*E*) # SGE could not start it, and keeps it for a person to look at
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
