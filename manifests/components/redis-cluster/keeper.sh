#!/bin/sh
# Runs beside each Redis of the StatefulSet and brings its node to where it belongs, again and again:
# every pod is met at its present address, nodes without a pod are forgotten, a node without slots
# becomes the replica of the master that has fewest, and slots that nobody serves are given out anew.
set -u
nodes=6 masters=3 slots=16384
# shellcheck disable=SC3028 # the kubelet sets it
ordinal=${HOSTNAME##*-}
failing_since=0

peer() { echo "redis-$1.redis"; }
address() { getent ahostsv4 "$(peer "$1")" | { read -r ip _ && echo "$ip"; }; }
cli() { timeout 5 redis-cli "$@" 2>/dev/null; }
# info HOST FIELD: a number of CLUSTER INFO, empty when the node does not answer.
info() { cli -h "$1" cluster info | tr -d '\r' | sed -n "s/^$2://p"; }
say() { echo "keeper: $*"; }

meet_and_forget() {
	known=$(cli cluster nodes) || return
	present=' '
	for n in $(seq 0 $((nodes - 1))); do
		ip=$(address "$n") || continue
		present="$present$ip "
		case $known in
		*" $ip:6379@"*) ;;
		*) cli cluster meet "$ip" 6379 >/dev/null && say "meets $(peer "$n") at $ip" ;;
		esac
	done
	# Only nodes that have failed, have no pod, and serve nothing.
	echo "$known" | while read -r id at flags _ _ _ _ _ ranges; do
		case $flags in
		*noaddr* | *fail | *fail,*) ;;
		*) continue ;;
		esac
		case $present in *" ${at%%:*} "*) continue ;; esac
		[ -z "$ranges" ] && cli cluster forget "$id" >/dev/null && say "forgets $id at $at"
	done
}

# The first start of all: every pod answers, knows the others, and no slot is given out.
form() {
	for n in $(seq 0 $((nodes - 1))); do
		[ "$(info "$(peer "$n")" cluster_known_nodes)" = "$nodes" ] || return
		[ "$(info "$(peer "$n")" cluster_slots_assigned)" = 0 ] || return
	done
	for n in $(seq 0 $((masters - 1))); do
		from=$((n * slots / masters)) to=$(((n + 1) * slots / masters - 1))
		cli -h "$(peer "$n")" cluster addslotsrange "$from" "$to" >/dev/null
		say "gives $(peer "$n") slots $from to $to"
	done
}

# A master without slots follows the master that has fewest replicas; ties by this pod's number, so
# that pods that start together spread. Those that chose the same one all the same part again: of two
# replicas of one master, one goes to a master that has none (Redis itself does so only for a master
# that once had one).
follow() {
	[ "$(info localhost cluster_slots_assigned)" = "$slots" ] || return
	leader=$(cli cluster nodes | awk -v ordinal="$ordinal" '
		$3 ~ /myself,master/ && NF == 8 { free = 1 }
		$3 ~ /myself,slave/ { me = $1; followed = $4 }
		$3 ~ /fail|handshake|noaddr/ { next }
		$3 ~ /slave/ { replicas[$4]++; if ($1 "" > last[$4] "") last[$4] = $1 }
		$3 ~ /master/ && NF > 8 { ids[n++] = $1 }
		END {
			for (i = 0; i < n; i++) if (i == 0 || replicas[ids[i]] + 0 < least) least = replicas[ids[i]] + 0
			spare = me != "" && least == 0 && replicas[followed] > 1 && last[followed] == me
			if (!free && !spare) exit
			for (i = 0; i < n; i++) if (replicas[ids[i]] + 0 == least) choice[m++] = ids[i]
			if (m) print choice[ordinal % m]
		}')
	[ -n "$leader" ] && cli cluster replicate "$leader" >/dev/null && say "follows $leader"
}

# A master and its replica were lost together. After half a minute, one of the masters that are left
# takes their slots over; what was in them is gone.
mend() {
	lost=$(info localhost cluster_slots_fail)
	if [ "${lost:-0}" = 0 ]; then
		failing_since=0
		return
	fi
	now=$(date +%s)
	[ "$failing_since" != 0 ] || failing_since=$now
	first=$(cli cluster nodes | awk '$3 ~ /master/ && $3 !~ /fail|handshake|noaddr/ && NF > 8 { print $1 }' | sort | head -n 1)
	if [ $((now - failing_since)) -ge 30 ] && [ "$(cli cluster myid)" = "$first" ]; then
		say "takes over $lost slots that nobody serves"
		redis-cli --cluster fix localhost:6379 --cluster-fix-with-unreachable-masters --cluster-yes
	fi
}

trap 'exit 0' TERM INT
while :; do
	if [ "$(cli ping)" = PONG ]; then
		meet_and_forget
		[ "$ordinal" != 0 ] || form
		follow
		mend
	fi
	sleep 2 &
	wait $!
done
