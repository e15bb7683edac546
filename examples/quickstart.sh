#!/usr/bin/env bash
# Strongroom's main job, start to end, on the embedded default: build the
# program, make a store, add a customer, seal a real file, read it back, compare,
# and show the audit trail. Everything stays below target/quickstart.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo build --release --locked --no-default-features --features cli,aws-lc
target=${CARGO_TARGET_DIR:-target}
strongroom=$target/release/strongroom

# The embedded default keeps its store and its keys in the user's data folder.
# Here that is a folder of our own, made anew each time.
rm -rf "$target/quickstart"
mkdir -p "$target/quickstart"
XDG_DATA_HOME=$(cd "$target/quickstart" && pwd)
export XDG_DATA_HOME
unset STRONGROOM_STORE STRONGROOM_BLOBS STRONGROOM_KEYS STRONGROOM_AUDIT STRONGROOM_LOCAL_KMS

step() {
    printf '\n$ strongroom %s\n' "$*"
    "$strongroom" "$@"
}

step init
step customer add acme --kms local
printf '\n$ strongroom put --customer acme --name docs/readme --content-type text/markdown README.md\n'
blob=$("$strongroom" put --customer acme --name docs/readme --content-type text/markdown README.md)
echo "$blob"
step ls --customer acme
step get --customer acme "$blob" -o "$XDG_DATA_HOME/readme.out"
step get --customer acme --name docs/readme --range 0-11 -o -
echo
step verify --customer acme "$blob"
step audit tail
step audit publish
step audit verify

cmp README.md "$XDG_DATA_HOME/readme.out"
printf '\nREADME.md was sealed as %s and read back identical.\n' "$blob"
