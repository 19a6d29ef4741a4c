#!/usr/bin/env bash
# Builds the images `cpu` and `benchmark` on a base made of Debian packages, with no registry and no network in the build,
# and runs what README.md says and some of the tests in them.
#
#     docker/build_offline.sh [FOLDER]      as root; FOLDER keeps the base and the wheels for the next time
#
# PYTHON=... chooses an interpreter with pip. The images stay: localhost/gpunn:cpu and localhost/gpunn:benchmark-cpu.
set -euo pipefail
KEPT=$(realpath -m -- "${1:-/var/tmp/gpunn-offline}")
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

readonly CHECKOUT=$PWD KEPT PYTHON=${PYTHON:-python3}
readonly BASE=localhost/gpunn-base:debian SOMEBODY=12345
readonly TESTS=(tests/test_network.py tests/test_files.py tests/training/test_fit.py tests/training/test_signals.py)

fail() {
    printf 'build_offline: %s\n' "$*" >&2
    exit 1
}

title() {
    printf '\n=== %s\n' "$*"
}

((EUID == 0)) || fail "run me as root: a base is made and containers are started"
for tool in debootstrap podman "$PYTHON"; do
    command -v "$tool" >/dev/null || fail "$tool is missing"
done
mkdir -p "$KEPT/wheels"
scratch=$(mktemp -d)
trap 'podman rm --force --ignore gpunn-offline >/dev/null; rm -rf -- "$scratch"' EXIT

# The lines of README.md call docker and id; here these are Podman without a network, and somebody who is not root.
# By itself Podman raises limits, which root may not do everywhere, and makes more than --tmpfs says writable.
limits=(--ulimit nofile=4096:4096 --ulimit nproc=4096:4096)
docker() {
    local verb=$1 options=()
    shift
    case $verb in
        build)
            options=("${limits[@]}" --network none --build-arg "PYTHON_IMAGE=$BASE" --volume "$KEPT/wheels:/wheels-kept:ro")
            (cd -- "$CHECKOUT" && podman build --quiet "${options[@]}" "$@")
            ;;
        run) podman run "${limits[@]}" --read-only-tmpfs=false --network none "$@" ;;
        *) podman "$verb" "$@" ;;
    esac
}
id() {
    printf '%s\n' "$SOMEBODY"
}

# What the images promise of every run.
readonly LOCKED=(--read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges)

# The fenced lines that follow <!-- image: NAME --> in README.md, run in a folder of somebody's.
readme_lines() {
    awk -v marker="<!-- image: $1 -->" '
        $0 == marker { found = 1; next }
        found && /^```/ { if (inside) exit; inside = 1; next }
        inside' docker/README.md
}
follow() {
    local lines
    lines=$(readme_lines "$1")
    [[ -n $lines ]] || fail "README.md has no lines after <!-- image: $1 -->"
    title "README.md, $1"
    (cd -- "$scratch/work" && umask 000 && eval "$lines") # a folder that root makes here is everybody's
}

if [[ ! -e $KEPT/base.tar ]]; then
    title "a base of Debian packages"
    # shellcheck source=/dev/null
    suite=$(. /etc/os-release && printf '%s' "$VERSION_CODENAME")
    debootstrap --variant=minbase --include=python3,python3-pip,python-is-python3 "$suite" "$scratch/base" >"$scratch/log" ||
        { tail "$scratch/log" >&2 && fail "debootstrap failed"; }
    # pip may install beside the system's packages, as in the official Python images, and looks nowhere but here.
    rm -f "$scratch"/base/usr/lib/python3*/EXTERNALLY-MANAGED
    printf '[global]\nno-index = true\nfind-links = /wheels-kept\nroot-user-action = ignore\n' >"$scratch/base/etc/pip.conf"
    tar -C "$scratch/base" --exclude './var/cache/apt/archives/*.deb' --exclude './dev/*' -cf "$KEPT/base.part" .
    mv "$KEPT/base.part" "$KEPT/base.tar"
    rm -rf -- "$scratch/base"
fi
podman import --quiet "$KEPT/base.tar" "$BASE"
release=$(docker run --rm "$BASE" python -c 'import sys; print("%d.%d" % sys.version_info[:2])')

for_the_base=(--quiet --only-binary :all: --python-version "$release")
if [[ ! -e $KEPT/wheels/complete ]]; then
    title "wheels for Python $release"
    wanted=$("$PYTHON" -c '
import tomllib
with open("pyproject.toml", "rb") as file:
    tree = tomllib.load(file)
extras = tree["project"]["optional-dependencies"]
print(*tree["build-system"]["requires"], *tree["project"]["dependencies"], *extras["data"], *extras["plot"], sep="\n")
')
    mapfile -t wanted <<<"$wanted"
    "$PYTHON" -m pip download "${for_the_base[@]}" --dest "$KEPT/wheels" "${wanted[@]}" pytest hypothesis ml_dtypes
    touch "$KEPT/wheels/complete"
fi

install --directory --owner="$SOMEBODY" --group="$SOMEBODY" "$scratch/work"
chmod 755 "$scratch"
follow cpu
follow pins

title "what a container may do"
docker run --rm "${LOCKED[@]}" --entrypoint python gpunn:cpu -c '
import os, pathlib, shutil
status = dict(line.split(":\t") for line in pathlib.Path("/proc/self/status").read_text().splitlines())
assert (os.getpid(), os.getuid(), os.getgid()) == (1, 10001, 10001)
assert {int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
for tool in ("cc", "c++", "gcc", "g++", "clang", "ld", "as", "make", "nvcc"):
    assert shutil.which(tool) is None, tool
for folder in ("/", "/data", "/usr/local", "/var/tmp"):
    try:
        pathlib.Path(folder, "written").write_text("")
    except OSError as error:
        print(error)
    else:
        raise AssertionError(f"{folder} can be written to")
'

title "tests: ${TESTS[*]}"
"$PYTHON" -m pip install "${for_the_base[@]}" --no-index --find-links "$KEPT/wheels" --target "$scratch/tools" pytest hypothesis ml_dtypes
docker run --rm --user "$SOMEBODY:$SOMEBODY" "${LOCKED[@]}" --workdir /checkout --env PYTHONPATH=/tools:/checkout \
    --volume "$scratch/tools:/tools:ro" --volume "$CHECKOUT/tests:/checkout/tests:ro" \
    --volume "$CHECKOUT/pyproject.toml:/checkout/pyproject.toml:ro" --entrypoint python gpunn:cpu \
    -m pytest -q -r f -p no:cacheprovider "${TESTS[@]}"

follow "run cpu"
[[ $(stat -c %u "$scratch/work/runs/digits/model.gpunn") == "$SOMEBODY" ]] || fail "the run is not its user's"

# stopped STATUS IMAGE COMMAND... starts a command, stops it when it is at work, and expects it to end with STATUS. (One that
# does not hear the signal is killed, and ends with 137.)
stopped() {
    local status=$1 image=$2
    shift 2
    title "docker stop of $image $*"
    docker run --detach --name gpunn-offline --user "$SOMEBODY:$SOMEBODY" --volume "$scratch/work:/data" "${LOCKED[@]}" \
        "$image" "$@" >/dev/null
    sleep 15
    docker stop --time 60 gpunn-offline >/dev/null
    [[ $(docker inspect --format '{{.State.ExitCode}}' gpunn-offline) == "$status" ]] ||
        { docker logs gpunn-offline >&2 && fail "it did not end with $status"; }
    docker rm gpunn-offline >/dev/null
}
stopped 143 gpunn:cpu train digits --epochs 100000 --patience 100000 --out runs/long
[[ -s $scratch/work/runs/long/checkpoint.gpunn ]] || fail "SIGTERM left no checkpoint"
stopped 143 gpunn:cpu train --resume --out runs/long

follow "run benchmark-cpu"
"$PYTHON" -c 'import json, sys; json.load(open(sys.argv[1], encoding="utf-8"))' "$scratch/work/results/step.json"
stopped 1 gpunn:benchmark-cpu step --json stopped.json

title "everything ran"
