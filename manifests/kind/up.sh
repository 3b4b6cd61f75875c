#!/usr/bin/env bash
# up.sh [OVERLAY FOLDER]: a cluster of kind (one control plane, two workers that claim a GPU each) with
# Knative, Kourier and KServe by pinned release, the images that the overlay names, and the overlay
# (overlays/cpu-demo). Run again, it only adds what is missing. Needs Docker, kind and kubectl.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
overlay=${1:-$root/manifests/overlays/cpu-demo}

# Knative and KServe as in the end-to-end tests; cert-manager is KServe 0.17's own choice.
knative=knative-v1.21.1 kourier=knative-v1.21.0 kserve=v0.17.0 cert_manager=v1.17.0
cluster=keepwarm
export CONTEXT=kind-$cluster
# Knative asks no registry about images by this name.
registry=kind.local
# cluster.yaml leads this machine's port to Kourier's node port.
port=8080 node_port=31080 domain=127.0.0.1.sslip.io

say() { printf '\n== %s\n' "$*"; }
die() {
	echo "error: $*" >&2
	exit 1
}
k() { kubectl --context "$CONTEXT" "$@"; }
apply() { k apply --server-side --force-conflicts "$@"; }
release() { apply -f "https://github.com/$1/releases/download/$2/$3"; }
established() { k wait --for=condition=Established crd --all --timeout=2m; }
available() { k -n "$1" wait --for=condition=Available deployment --all --timeout=10m; }
# The arguments of `docker build` for keepwarm/$1.
recipe() {
	case $1 in
	transformer) echo -f transformers/Dockerfile ;;
	predictor-cpu) echo -f predictors/Dockerfile.cpu --target predictor ;;
	predictor-cpu-demo) echo -f predictors/Dockerfile.cpu --target demo ;;
	*) die "$overlay runs keepwarm/$1, for which a simulated GPU is not enough" ;;
	esac
}

for program in docker kind kubectl; do
	command -v "$program" > /dev/null || die "$program is not installed"
done
docker info > /dev/null || die 'the Docker engine does not answer'
manifest=$(kubectl kustomize "$overlay")
images=$(sed -nE 's#^.*image: keepwarm/([a-z-]+):0\.1\.0$#\1#p' <<< "$manifest" | sort -u)
[ -n "$images" ] || die "$overlay runs no image of keepwarm"
# Before minutes are spent on a cluster.
for image in $images; do recipe "$image" > /dev/null; done

say "cluster $cluster"
kind get clusters | grep -qx "$cluster" || kind create cluster --config "$here/cluster.yaml" --wait 5m

say 'a simulated GPU on each worker'
read -ra workers <<< "$(k get nodes -l '!node-role.kubernetes.io/control-plane' -o 'jsonpath={.items[*].metadata.name}')"
"$here/simulate-gpus.sh" 1 "${workers[@]}"

say "cert-manager $cert_manager"
release cert-manager/cert-manager "$cert_manager" cert-manager.yaml

say "Knative Serving $knative with Kourier $kourier"
release knative/serving "$knative" serving-crds.yaml
established
release knative/serving "$knative" serving-core.yaml
release knative-extensions/net-kourier "$kourier" kourier.yaml
available knative-serving
k -n knative-serving patch configmap config-network --type=merge \
	-p '{"data": {"ingress-class": "kourier.ingress.networking.knative.dev"}}'
k -n knative-serving patch configmap config-domain --type=merge -p "{\"data\": {\"$domain\": \"\"}}"
k -n kourier-system patch service kourier --type=merge -p "{\"spec\": {\"type\": \"NodePort\", \"ports\": [
	{\"name\": \"http2\", \"port\": 80, \"targetPort\": 8080, \"nodePort\": $node_port}]}}"

say "KServe $kserve"
available cert-manager
k create namespace kserve --dry-run=client -o yaml | apply -f -
release kserve/kserve "$kserve" kserve-crds.yaml
established
release kserve/kserve "$kserve" kserve.yaml
# Not used here; the second would wait for the Gateway API.
k -n kserve scale deployment kserve-localmodel-controller-manager llmisvc-controller-manager --replicas=0
k -n kserve patch configmap inferenceservice-config --type=merge --patch-file "$here/kserve-ingress.yaml"
k -n kserve rollout restart deployment kserve-controller-manager
k -n kserve rollout status deployment kserve-controller-manager --timeout=10m

for image in $images; do
	say "image $image"
	read -ra arguments <<< "$(recipe "$image")"
	(cd "$root" && docker build -t "$registry/keepwarm-$image:0.1.0" "${arguments[@]}" .)
	kind load docker-image --name "$cluster" "$registry/keepwarm-$image:0.1.0"
done

say "$overlay"
sed -E "s#image: keepwarm/([a-z-]+):0\.1\.0\$#image: $registry/keepwarm-\1:0.1.0#" <<< "$manifest" | apply -f -
k wait inferenceservice/chat --for=condition=Ready --timeout=15m

cat << END

Ready:

  curl -s http://chat-transformer.default.$domain:$port/openai/v1/chat/completions -d '{"model": "chat",
    "messages": [{"role": "user", "content": "What is the capital of France?"}], "temperature": 0}'

kubectl --context $CONTEXT get pods -w     shows the predictor come and go
kind delete cluster --name $cluster        ends it all
END
