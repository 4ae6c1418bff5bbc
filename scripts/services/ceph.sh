#!/usr/bin/env bash
# ceph.sh install|start|stop - the cluster of scripts/ceph, in SERVICE_DIR.
set -euo pipefail
ceph=$(dirname -- "$(realpath -- "${BASH_SOURCE[0]}")")/../ceph
export CEPH_DIR=${SERVICE_DIR:?where it lives}/ceph CEPH_STORE_BYTES=${CEPH_STORE_BYTES:-8589934592}

case ${1:-} in
  install) "$ceph/install.sh" ;;
  start | stop) "$ceph/cluster.sh" "$1" ;;
  *) echo 'ceph.sh install|start|stop' >&2; exit 2 ;;
esac
