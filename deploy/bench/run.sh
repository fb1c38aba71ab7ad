#!/bin/sh
# Self-test and conformance suite on every device named (URLs or aliases), with JUnit and a record of each session.
#
#   deploy/bench/run.sh REPORTS DEVICE...      e.g.  deploy/bench/run.sh reports ulx tcp://bench.lab:8641
#
# MORPHNIC: the command (default: morphnic). Exit code 1 when anything failed; every device is tried.
set -u
if [ $# -lt 2 ]; then
    echo "usage: $0 REPORTS DEVICE..." >&2
    exit 1
fi
morphnic=${MORPHNIC:-morphnic}
reports=$1
shift
mkdir -p "$reports" || exit 3
failed=0
for device in "$@"; do
    name=$(printf %s "$device" | tr -c 'A-Za-z0-9._-' _)
    echo "== $device"
    $morphnic selftest --device "$device" --junit "$reports/$name-selftest.xml" || failed=1
    $morphnic test --device "$device" --timeout 10 --junit "$reports/$name.xml" --record "$reports/$name.jsonl" || failed=1
done
exit $failed
