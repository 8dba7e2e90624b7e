#!/bin/sh
# Starts the network of compose.yaml: the coordinator first, then the other nodes, each with a token of its own. Run it once; later
# 'docker compose up -d' does. What devices add is printed.
set -eu
cd "$(dirname "$0")"
docker compose up -d --build coordinator
until docker compose exec -T coordinator /anyfs node status --dir /data >/dev/null 2>&1; do sleep 1; done
link=$(docker compose logs --no-log-prefix coordinator | grep '^anyfs://network/' | tail -n 1)
umask 077
{
  echo "ANYFS_HOST=${ANYFS_HOST:-localhost}"
  echo "ANYFS_NETWORK=$link"
  for node in SYNC1 SYNC2 SYNC3 FILE1 FILE2; do
    echo "ANYFS_TOKEN_$node=$(docker compose exec -T coordinator /anyfs node token --dir /data)"
  done
} >.env
docker compose up -d
echo "$link"
