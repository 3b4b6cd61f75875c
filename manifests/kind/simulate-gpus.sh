#!/usr/bin/env bash
# simulate-gpus.sh COUNT NODE...: lets each node say that it has COUNT of nvidia.com/gpu (0: none any
# more), on the cluster of kubectl's context or of CONTEXT. The scheduler counts them as it counts real
# ones; a container gets nothing for it. A node forgets them when its kubelet starts anew.
set -euo pipefail

if [ $# -lt 2 ] || ! [[ $1 =~ ^[0-9]+$ ]]; then
	echo 'usage: simulate-gpus.sh COUNT NODE...' >&2
	exit 2
fi
count=$1
shift
# Kubernetes, Advertise Extended Resources for a Node: the capacity is patched, and the kubelet follows
# with what can be allocated.
operation="{\"op\": \"add\", \"path\": \"/status/capacity/nvidia.com~1gpu\", \"value\": \"$count\"}"
for node in "$@"; do
	kubectl ${CONTEXT:+--context "$CONTEXT"} patch node "$node" --subresource=status --type=json -p "[$operation]"
done
