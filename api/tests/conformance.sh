#!/usr/bin/env bash
# Holds the release binary against the golden kit beside this repository: what passed once, as listed in
# conformance.passing, passes still.
#
#   api/tests/conformance.sh                    all areas that are built, compared with the list
#   api/tests/conformance.sh --add              the same, and writes what newly passes into the list
#   api/tests/conformance.sh timer/fires ...    these scenarios (or areas) alone, with their differences
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
kit=$root/../shared/conformance
binary=${HOLDFAST_BIN:-$root/target/release/holdfast}
out=$root/target/conformance
areas=start,workflow_task,activity,timer,signal,cancel,terminate,history,describe,namespace,system,marker,sdk

[ -d "$kit" ] || { echo "conformance: $kit is absent, nothing to compare with"; exit 0; }
[ -x "$binary" ] || { echo "conformance: no $binary, run make build" >&2; exit 1; }
mkdir -p "$out"

# The server's private folder is made under TMPDIR, so that also what a crash leaves is thrown away. It is in memory
# where the system has that: scenarios hold deadlines of a second, and a disk that still writes what a build has left
# can hold a sync for longer. What disks do to the server is the matter of the crash suites.
memory=/dev/shm
[ -w "$memory" ] && [ "$(df -Pk "$memory" | awk 'END { print $4 }')" -gt 1048576 ] || memory=${TMPDIR:-/tmp}
scratch=$(mktemp -d -p "$memory")
server=
finish() {
    if [ -n "$server" ] && kill "$server" 2>/dev/null; then
        for _ in {1..100}; do kill -0 "$server" 2>/dev/null || break; sleep 0.1; done
        kill -9 "$server" 2>/dev/null && echo "conformance: the server did not stop within 10 s" >&2 || true
    fi
    rm -rf "$scratch"
}
trap finish EXIT

read -r port http < <(python3 -c '
import socket
import random
sockets = []
# Below the ports that the system gives to connections, which may be taken again at any moment.
while len(sockets) < 2:
    s = socket.socket()
    try: s.bind(("127.0.0.1", random.randrange(15000, 30000)))
    except OSError: continue
    sockets.append(s)

print(*(s.getsockname()[1] for s in sockets))')
# The flags are one line of words: they are meant to be split.
TMPDIR=$scratch "$binary" server start-dev --headless --port "$port" --http-port "$http" $(<"$kit/server-flags") \
    >"$out/server.log" 2>&1 &
server=$!
for _ in {1..100}; do
    (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null && break
    kill -0 "$server" 2>/dev/null || { echo "conformance: the server ended at once:"; tail -20 "$out/server.log"; exit 1; } >&2
    sleep 0.1
done

if [ $# -gt 0 ] && [ "$1" != --add ]; then
    "$kit/run" --target "127.0.0.1:$port" --only "$(IFS=,; echo "$*")" --attempts 1 --diff
    exit
fi

# The kit's own verdict wants everything to pass; ours is the list.
rm -f "$out/outcomes.json"
"$kit/run" --target "127.0.0.1:$port" --only "$areas" --attempts 1 --json "$out/outcomes.json" >"$out/kit.log" || true
[ -s "$out/outcomes.json" ] || { echo "conformance: the kit did not finish:"; tail -20 "$out/kit.log"; exit 1; } >&2
kill -0 "$server" 2>/dev/null || { echo "conformance: the server died:"; tail -20 "$out/server.log"; exit 1; } >&2

python3 - "$out/outcomes.json" "$here/conformance.passing" "${1:-}" <<'PY'
import json, pathlib, sys

outcomes = {o["scenario"]: o for o in json.load(open(sys.argv[1]))}
path, add = pathlib.Path(sys.argv[2]), sys.argv[3] == "--add"
listed = set(path.read_text().split()) if path.exists() else set()
passed = {name for name, o in outcomes.items() if o["result"] == "passed"}

def line(label, names):
    good = len(passed & names)
    print(f"  {label:16}{good:4} of {len(names):3}  {100 * good // max(1, len(names)):3} %")

for area in sorted({name.split("/")[0] for name in outcomes}):
    line(area, {name for name in outcomes if name.split("/")[0] == area})
line("all", set(outcomes))

if new := sorted(passed - listed):
    if add:
        path.write_text("".join(f"{name}\n" for name in sorted(passed | listed)))
    print("conformance: added:" if add else "conformance: new, add them (api/tests/conformance.sh --add):")
    print("".join(f"  {name}\n" for name in new), end="")
if fallen := sorted(listed - passed):
    print("conformance: passed before and does not now:")
    for name in fallen:
        o = outcomes.get(name, {"result": "not in the kit", "reason": "take it off the list"})
        print(f"  {name}: {o['result']}, {o['reason']}")
    print("conformance: for the differences: api/tests/conformance.sh " + " ".join(fallen))
    sys.exit(1)
PY
