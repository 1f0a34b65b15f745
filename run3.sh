#!/bin/bash
# usage: run.sh TREE OUT [new] : hashes of small trainings with the code of TREE; one at a time on this machine
TREE=$1; OUT=$2; KIND=${3:-old}
rm -rf $OUT; mkdir -p $OUT
exec flock /work/bits/lock timeout 900 /work/main/.venv/bin/python /work/bits/fast.py $TREE $OUT $KIND 2> $OUT/log.txt
