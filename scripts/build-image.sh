#!/usr/bin/env bash
# Build the container image where no Docker engine runs: as root, with Debian's buildah and
# debootstrap (apt-get install buildah debootstrap).
#
#   scripts/build-image.sh [IMAGE]    default: storygen
#
# The base image is made here from Debian's packages under the name the Dockerfile asks for.
# pip in the build uses the index, directories of wheels and certificates that pip here does.
# To try the image:
#   BUILDAH_ISOLATION=chroot buildah run "$(buildah from storygen)" -- python -m storygen models
set -euo pipefail
cd "$(dirname "$0")/.."
export BUILDAH_ISOLATION=chroot
image=${1:-storygen}
base=$(awk '/^FROM/ { print $2; exit }' Dockerfile)

make_base() {
    local root container
    root=$(mktemp -d)
    debootstrap --variant=minbase --include=ca-certificates,python3,python3-pip,python3-venv \
        bookworm "$root" >"$root.log" || { tail "$root.log"; return 1; }
    rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/usr/share/{doc,locale,man}
    ln -s python3 "$root/usr/bin/python"
    container=$(buildah from scratch)
    buildah add --quiet "$container" "$root" /
    buildah commit --quiet --rm "$container" "$base"
    rm -rf "$root" "$root.log"
}

# --build-arg and --volume for each option of pip here that decides where packages come from.
pip_arguments() {
    local option variable value place
    for option in index-url extra-index-url find-links cert; do
        variable=PIP_$(tr 'a-z-' 'A-Z_' <<<"$option")
        value=${!variable:-$(python3 -m pip config get "global.$option" 2>/dev/null || true)}
        [ -n "$value" ] || continue
        printf '%s\n' --build-arg "$variable=$value"
        for place in $value; do
            case $place in
            file://*) place=$(dirname "${place#file://}") ;; # the files lie beside the index
            esac
            [ ! -e "$place" ] || printf '%s\n' --volume "$place:$place:ro"
        done
    done
}

buildah inspect --type image "$base" >/dev/null 2>&1 || make_base
mapfile -t pip < <(pip_arguments)
# HEALTHCHECK is kept in Docker's format only.
buildah build --format docker --pull-never "${pip[@]}" --tag "$image" .
buildah images "$image"
