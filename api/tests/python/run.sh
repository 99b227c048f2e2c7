#!/usr/bin/env bash
# The published Python SDK against the binary. Arguments go to pytest:
#   api/tests/python/run.sh -k signal
# HOLDFAST_BIN names another server that takes `server start-dev`; Temporal's own must pass, too.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${HOLDFAST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/holdfast}
stop() { echo "python tests: $*" >&2; exit 1; }

export HOLDFAST_BIN=${HOLDFAST_BIN:-$here/../../../target/release/holdfast}
[ -x "$HOLDFAST_BIN" ] || stop "no server at $HOLDFAST_BIN: run make build"
command -v python3 >/dev/null || stop "no python3: install it (apt-get install python3 python3-venv)"
python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' || stop "python3 is older than 3.10, which the SDK needs"

# One environment per content of requirements.txt and version of Python, made once, whole or not at all.
key=$( (cat "$here/requirements.txt"; python3 -V) | sha256sum | cut -c1-16)
env=$cache/python-$key
if [ ! -e "$env/complete" ]; then
    mkdir -p "$cache"
    (
        flock 9
        [ -e "$env/complete" ] && exit
        rm -rf "$env"
        echo "python tests: installing the SDK and pytest into $env" >&2
        python3 -m venv "$env" || { echo "no venv: apt-get install python3-venv" >&2; exit 1; }
        "$env/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt"
        touch "$env/complete"
    ) 9>"$env.lock" || stop "the environment could not be made, see above"
fi

cd "$here"
# Without Rust's traces through Python, which are longer than everything else.
exec env PYTHONDONTWRITEBYTECODE=1 RUST_BACKTRACE=0 "$env/bin/python" -m pytest -p no:cacheprovider "$@"
