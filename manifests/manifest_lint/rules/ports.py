"""Ports of a Knative component: one in all, and its name decides the protocol."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from manifest_lint.documents import Path
from manifest_lint.inference_service import Component, Container, InferenceService, mapping
from manifest_lint.quantities import whole
from manifest_lint.rule import Gate, Problem, Rule, Severity

NAMES = ("", "http1", "h2c", "user-port")
HTTP_PORT, GRPC_PORT = 8080, 8081
PROBES = ("readinessProbe", "startupProbe", "livenessProbe")


class _Port(NamedTuple):
    path: Path
    container: Container
    name: str
    number: Any


def _ports(component: Component) -> list[_Port]:
    return [
        _Port(
            (*container.path, "ports", index),
            container,
            str(port.get("name") or ""),
            port.get("containerPort"),
        )
        for container in component.served
        for index, port in enumerate(container.ports)
    ]


def _several(service: InferenceService) -> Iterator[Problem]:
    for component in service.knative_components:
        if len(component.containers) > 1 and not _ports(component):
            yield Problem(
                component.at("containers"),
                f"One of the {component.role}'s {len(component.containers)} containers must name"
                " the port that is called.",
                refusal="missing field(s): spec.template.spec.containers",
            )
        for port in _ports(component)[1:]:
            yield Problem(
                port.path,
                f"Port {port.number} is one too many: all containers of the {component.role}"
                " together may name one.",
                refusal="more than one container port is set",
            )


def _names(service: InferenceService) -> Iterator[Problem]:
    for component in service.knative_components:
        for port in _ports(component):
            if port.name not in NAMES:
                yield Problem(
                    (*port.path, "name"),
                    f"A Knative port is named http1, h2c or nothing, not {port.name}.",
                    refusal=f"Port name {port.name} is not allowed",
                )


def _probed(port: _Port, kind: str) -> bool:
    probes = (mapping(port.container.spec.get(name)).get(kind) for name in PROBES)
    return any(
        probe is not None and mapping(probe).get("port", port.number) in (port.number, port.name)
        for probe in probes
    )


def _speaks_grpc(service: InferenceService, component: Component, port: _Port) -> bool:
    if _probed(port, "grpc"):
        return True
    transformer = service.component("transformer")
    main = transformer.main if transformer else None
    asked = main is not None and (main.flag("predictor_protocol") or "").startswith("grpc")
    if component.role == "predictor" and asked:
        return True
    said = whole(port.container.flag("grpc_port"))
    return port.number == (said if said is not None else GRPC_PORT) and not _probed(port, "httpGet")


def _grpc_without_h2c(service: InferenceService) -> Iterator[Problem]:
    for component in service.knative_components:
        for port in _ports(component)[:1]:
            if port.name != "h2c" and _speaks_grpc(service, component, port):
                yield Problem(
                    port.path,
                    f"The {component.role} speaks gRPC on port {port.number}, whose name must be"
                    " h2c.",
                )


def _rest_with_h2c(service: InferenceService) -> Iterator[Problem]:
    for component in service.knative_components:
        for port in _ports(component)[:1]:
            said = whole(port.container.flag("http_port"))
            rest = port.number == (said if said is not None else HTTP_PORT)
            if (
                port.name == "h2c"
                and (rest or _probed(port, "httpGet"))
                and not _probed(port, "grpc")
            ):
                yield Problem(
                    (*port.path, "name"),
                    f"Port {port.number} of the {component.role} serves REST; its name is http1.",
                )


RULES = (
    Rule(
        id="KW005",
        severity=Severity.ERROR,
        title="Not exactly one port on a Knative component",
        reason="Knative takes one containerPort for all containers of a revision and refuses more,"
        " so a component serves REST or gRPC, never both. With sidecars it needs one to know which"
        " container serves.",
        fix="Keep the port that is called. Metrics are scraped by pod address without a named"
        " port.",
        source="knative serving pkg/apis/serving/k8s_validation.go validateContainers",
        gate=Gate.KNATIVE,
        failing="""
predictor:
  containers:
    - name: kserve-container
      image: example/predictor:1
      ports:
        - {name: h2c, containerPort: 8081}
        - {containerPort: 8080}
""",
        passing="""
predictor:
  containers:
    - name: kserve-container
      image: example/predictor:1
      ports: [{name: h2c, containerPort: 8081}]
""",
        check=_several,
    ),
    Rule(
        id="KW006",
        severity=Severity.ERROR,
        title="A port name that Knative refuses",
        reason="The name selects the protocol; Knative accepts http1, h2c and none.",
        fix="Name it h2c for gRPC, and http1 or nothing for REST.",
        source="knative serving pkg/apis/serving/k8s_validation.go validateContainerPorts",
        gate=Gate.KNATIVE,
        failing="""
predictor:
  containers:
    - name: kserve-container
      image: example/predictor:1
      ports: [{name: grpc, containerPort: 8081}]
""",
        passing="""
predictor:
  containers:
    - name: kserve-container
      image: example/predictor:1
      ports: [{name: h2c, containerPort: 8081}]
""",
        check=_names,
    ),
    Rule(
        id="KW007",
        severity=Severity.ERROR,
        title="gRPC on a port that is not named h2c",
        reason="Without that name the gateway and queue-proxy speak HTTP/1.1 to the pod, and every"
        " gRPC call fails.",
        fix="Set `name: h2c` on the port.",
        source="knative serving, the service's port protocol; seen on a real cluster",
        failing="""
transformer:
  containers:
    - name: kserve-container
      image: example/transformer:1
      args: [--predictor_protocol=grpc-v2]
predictor:
  containers:
    - name: kserve-container
      image: example/predictor:1
      ports: [{containerPort: 8081}]
""",
        passing="""
transformer:
  containers:
    - name: kserve-container
      image: example/transformer:1
      args: [--predictor_protocol=grpc-v2]
predictor:
  containers:
    - name: kserve-container
      image: example/predictor:1
      ports: [{name: h2c, containerPort: 8081}]
""",
        check=_grpc_without_h2c,
    ),
    Rule(
        id="KW008",
        severity=Severity.ERROR,
        title="REST on a port named h2c",
        reason="With that name gateways speak HTTP/2 to the pod for every request, which uvicorn,"
        " the server under KServe's REST, cannot.",
        fix="Name it http1, or nothing.",
        source="knative serving pkg/queue NewProxyAutoTransport; uvicorn",
        failing="""
transformer:
  containers:
    - name: kserve-container
      image: example/transformer:1
      ports: [{name: h2c, containerPort: 8080}]
""",
        passing="""
transformer:
  containers:
    - name: kserve-container
      image: example/transformer:1
      ports: [{name: http1, containerPort: 8080}]
""",
        check=_rest_with_h2c,
    ),
)
