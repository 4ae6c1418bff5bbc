#!/bin/sh
# Runs "$NODE" with the given arguments as process 1 of a process namespace of its own, as in a container.
if [ "$(id -u)" = 0 ]; then
  exec unshare --pid --fork --kill-child --mount-proc "$NODE" "$@"
fi
exec unshare --map-root-user --pid --fork --kill-child --mount-proc "$NODE" "$@"
