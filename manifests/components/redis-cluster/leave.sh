#!/bin/sh
# Before a master's pod ends, its replica takes over: callers then meet a redirection, not an outage.
set -u
id=$(redis-cli cluster myid)
replica=$(redis-cli cluster nodes | awk -v id="$id" '$4 == id && $3 !~ /fail/ { split($2, at, ":"); print at[1]; exit }')
[ -n "$replica" ] || exit 0
redis-cli -h "$replica" cluster failover
for _ in 1 2 3 4 5 6 7 8 9 10; do
	redis-cli role | head -n 1 | grep -q slave && exit 0
	sleep 0.5
done
