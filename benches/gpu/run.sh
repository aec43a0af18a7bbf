#!/usr/bin/env bash
# Everything that a machine with an NVIDIA card is needed for, in one call of under ten minutes.
#
#     run.sh FOLDER [--out FOLDER] [--minutes N] [--only PART...] [--device cpu]
#
# FOLDER is what pack.sh made, unpacked or as archives. No network is needed. The report goes to
# stdout, and with report.json and logs.txt into the folder `card-report` (or --out).
#
# Needs Python 3.9. The peer needs torch with CUDA, transformers and peft; without them its rows are
# left out. $PYTHON names another interpreter. --device cpu tries the scripts out without a card.
#
# Exit code: 0 all parts were done or skipped, 1 a part failed, 2 it could not begin.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"

works() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 9))' > /dev/null 2>&1; }
# Only whether it is there: importing torch takes seconds.
has_torch() {
    "$1" -c 'import importlib.util as u, sys; sys.exit(u.find_spec("torch") is None)' > /dev/null 2>&1
}

found=
for candidate in ${PYTHON:+"$PYTHON"} python3 python; do
    works "$candidate" || continue
    found="${found:-$candidate}"
    # What was asked for is taken, with torch or without.
    if [ "$candidate" = "${PYTHON:-}" ] || has_torch "$candidate"; then
        found="$candidate"
        break
    fi
done
if [ -z "$found" ]; then
    echo 'run.sh: Python 3.9 or newer is needed' >&2
    exit 2
fi
PYTHONDONTWRITEBYTECODE=1 exec "$found" "$here/measure.py" "$@"
