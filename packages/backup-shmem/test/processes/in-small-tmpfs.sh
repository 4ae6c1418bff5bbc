#!/bin/sh
# Runs "$NODE" with the given arguments in a mount namespace where "$SMALL_TMPFS" is a tmpfs of 6 MiB.
run='mount -t tmpfs -o size=6m,mode=700 tmpfs "$SMALL_TMPFS" && exec "$NODE" "$@"'
if [ "$(id -u)" = 0 ]; then
  exec unshare --mount sh -c "$run" sh "$@"
fi
exec unshare --map-root-user --mount sh -c "$run" sh "$@"
