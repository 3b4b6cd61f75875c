#!/usr/bin/env bash
# Runs the end-to-end tests: on the cluster that KUBECONFIG, KEEPWARM_GATEWAY and KEEPWARM_IMAGES
# name, or else on the one that ../shared/cluster brings up here, with images built from this tree.
set -euo pipefail
cd "$(dirname "$0")/../.."
kit=$PWD/../shared/cluster
if [ -z "${KUBECONFIG:-}" ] || [ -z "${KEEPWARM_GATEWAY:-}" ]; then
	if ! [ -x "$kit/up.sh" ]; then
		echo 'no cluster: set KUBECONFIG, KEEPWARM_GATEWAY (its ingress) and KEEPWARM_IMAGES (registry/keepwarm-*:tag)' >&2
		exit 1
	fi
	# Pods outlive the shell that started them.
	trap '"$kit/down.sh"' EXIT
	# In two steps: an eval of a command that failed succeeds. A cluster that was cut off may not
	# come up again over what it left.
	settings=$("$kit/up.sh") || { "$kit/down.sh" --purge && settings=$("$kit/up.sh"); }
	eval "$settings"
	"$kit/image.sh" keepwarm-transformer:e2e . --file transformers/Dockerfile
	"$kit/image.sh" keepwarm-predictor-cpu-demo:e2e . --file predictors/Dockerfile.cpu --target demo
	"$kit/image.sh" keepwarm-warm-pool:e2e . --file autoscaling/Dockerfile.controller
	"$kit/image.sh" keepwarm-redis:e2e tests/e2e/redis
	export KEEPWARM_IMAGES='dev.local/keepwarm-*:e2e' KEEPWARM_REDIS_IMAGE=dev.local/keepwarm-redis:e2e
fi
.venv/bin/pytest tests/e2e -s "$@"
