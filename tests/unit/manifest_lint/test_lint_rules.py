"""Tables: what a fragment of a manifest is told, beyond the rules' own examples."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from llm_transformer.settings import TransformerSettings
from manifest_lint.documents import Document
from manifest_lint.examples import document
from manifest_lint.inference_service import API
from manifest_lint.linter import lint
from manifest_lint.servers import DEFAULTS
from vllm_predictor.settings import PredictorSettings


def ids(text, **options):
    return {finding.rule.id for finding in lint([document(text)], **options).findings}


def predictor(**fields):
    return yaml.safe_dump({"predictor": fields})


def container(**fields):
    return predictor(containers=[{"name": "kserve-container", "image": "example/p:1"} | fields])


def annotated(key, value):
    return predictor(annotations={key: value})


def standard(text):
    metadata = {"name": "chat", "annotations": {"serving.kserve.io/deploymentMode": "Standard"}}
    return yaml.safe_dump({"metadata": metadata, "spec": yaml.safe_load(text)})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("restartPolicy", "Always"),
        ("hostname", "a"),
        ("nodeName", "a"),
        ("activeDeadlineSeconds", 5),
        ("resourceClaims", [{"name": "gpu"}]),
    ],
)
def test_knative_drops_these_of_a_pod(field, value):
    assert "KW001" in ids(predictor(**{field: value}))
    assert "KW001" not in ids(standard(predictor(**{field: value})))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("stdin", True),
        ("tty", True),
        ("ports", [{"containerPort": 8080, "hostPort": 80}]),
        ("volumeMounts", [{"name": "v", "mountPath": "/v", "subPathExpr": "$(A)"}]),
        ("securityContext", {"seLinuxOptions": {"level": "s0"}}),
        ("securityContext", {"procMount": "Unmasked"}),
    ],
)
def test_knative_drops_these_of_a_container(field, value):
    assert "KW001" in ids(container(**{field: value}))


@pytest.mark.parametrize(
    "fragment",
    [
        predictor(automountServiceAccountToken=True),
        predictor(volumes=[{"name": "v", "downwardAPI": {}}]),
        predictor(volumes=[{"name": "v", "nfs": {"server": "a", "path": "/"}}]),
        predictor(volumes=[{"name": "v", "ephemeral": {}}]),
        container(securityContext={"privileged": True}),
    ],
)
def test_knative_always_refuses_these(fragment):
    assert "KW009" in ids(fragment)
    assert "KW009" not in ids(standard(fragment))


def test_a_mount_propagation_needs_a_flag():
    text = container(volumeMounts=[{"name": "v", "mountPath": "/v", "mountPropagation": "None"}])
    assert "KW002" in ids(text)


def test_harmless_values_of_those_fields_pass():
    locked = {
        "privileged": False,
        "runAsNonRoot": True,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert not {"KW001", "KW002", "KW009"} & ids(container(securityContext=locked))
    assert "KW009" not in ids(predictor(automountServiceAccountToken=False))


@pytest.mark.parametrize(
    ("fields", "flag"),
    [
        ({"nodeSelector": {"a": "b"}}, "kubernetes.podspec-nodeselector"),
        ({"tolerations": [{"key": "a"}]}, "kubernetes.podspec-tolerations"),
        ({"affinity": {"nodeAffinity": {"a": 1}}}, "kubernetes.podspec-affinity"),
        ({"securityContext": {"fsGroup": 1}}, "kubernetes.podspec-securitycontext"),
        ({"initContainers": [{"name": "a"}]}, "kubernetes.podspec-init-containers"),
        ({"storageUris": [{"uri": "hf://a/b"}]}, "kubernetes.podspec-init-containers"),
        ({"runtimeClassName": "nvidia"}, "kubernetes.podspec-runtimeclassname"),
        ({"priorityClassName": "high"}, "kubernetes.podspec-priorityclassname"),
        (
            {"volumes": [{"name": "v", "hostPath": {"path": "/a"}}]},
            "kubernetes.podspec-volumes-hostpath",
        ),
        (
            {
                "volumes": [
                    {"name": "v", "persistentVolumeClaim": {"claimName": "a", "readOnly": True}}
                ]
            },
            "kubernetes.podspec-persistent-volume-claim",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_feature_flag_lets_a_field_pass(fields, flag):
    (found,) = [
        finding
        for finding in lint([document(predictor(**fields))]).findings
        if finding.rule.id == "KW002"
    ]
    assert flag in found.message
    assert "KW002" not in ids(predictor(**fields), enabled=[flag])
    assert "KW002" not in ids(standard(predictor(**fields)))


def test_env_from_a_field_and_added_capabilities_need_flags_too():
    field = {"valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
    assert "KW002" in ids(container(env=[{"name": "POD"} | field]))
    assert "KW002" in ids(container(securityContext={"capabilities": {"add": ["SYS_NICE"]}}))
    secret = {"valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}}
    assert "KW002" not in ids(container(env=[{"name": "TOKEN"} | secret]))


def test_a_sidecars_probe_needs_a_flag():
    probe = {"tcpSocket": {"port": 1}}
    main = {"name": "kserve-container", "ports": [{"containerPort": 8080}], "readinessProbe": probe}
    sidecar = {"name": "sidecar", "readinessProbe": probe}
    assert "KW002" in ids(predictor(containers=[main, sidecar]))
    assert "KW002" not in ids(predictor(containers=[main, {"name": "sidecar"}]))


def test_a_claim_mounted_read_only_needs_one_flag_and_written_to_a_second():
    claim = {"name": "v", "persistentVolumeClaim": {"claimName": "weights"}}
    allowed = ["kubernetes.podspec-persistent-volume-claim"]

    def mounted(**how):
        mount = {"name": "v", "mountPath": "/mnt/models"} | how
        return predictor(
            volumes=[claim], containers=[{"name": "kserve-container", "volumeMounts": [mount]}]
        )

    assert "KW002" not in ids(mounted(readOnly=True), enabled=allowed)
    assert "KW002" in ids(mounted(), enabled=allowed)


@pytest.mark.parametrize(
    ("path", "refused"), [("/", True), ("/dev", True), ("/dev/log/", True), ("/dev/shm", False)]
)
def test_reserved_mount_paths(path, refused):
    found = ids(container(volumeMounts=[{"name": "v", "mountPath": path}]))
    assert ("KW004" in found) is refused


def test_a_mount_needs_its_volume():
    mounts = [{"name": "v", "mountPath": "/v"}]
    served = [{"name": "kserve-container", "volumeMounts": mounts}]
    assert "KW003" in ids(predictor(containers=served))
    assert "KW003" not in ids(predictor(containers=served, volumes=[{"name": "v", "emptyDir": {}}]))


def test_with_sidecars_one_port_is_needed():
    assert "KW005" in ids(predictor(containers=[{"name": "kserve-container"}, {"name": "b"}]))
    assert "KW005" not in ids(predictor(containers=[{"name": "kserve-container"}]))


def test_ports_of_several_containers_count_together():
    both = [{"name": n, "ports": [{"containerPort": 8080}]} for n in ("kserve-container", "b")]
    assert "KW005" in ids(predictor(containers=both))
    assert "KW005" not in ids(standard(predictor(containers=both)))


@pytest.mark.parametrize(
    ("port", "probe", "found"),
    [
        ({"containerPort": 8081}, {"grpc": {"port": 8081}}, {"KW007"}),
        ({"containerPort": 9000}, {"grpc": {"port": 9000}}, {"KW007"}),
        ({"containerPort": 8081, "name": "h2c"}, {"grpc": {"port": 8081}}, set()),
        ({"containerPort": 8080}, {"httpGet": {"path": "/"}}, set()),
        ({"containerPort": 8081}, {"httpGet": {"path": "/", "port": 8081}}, set()),
        ({"containerPort": 8000, "name": "h2c"}, {"httpGet": {"port": 8000}}, {"KW008"}),
        ({"containerPort": 8080, "name": "h2c"}, {"grpc": {"port": 8080}}, set()),
    ],
)
def test_the_port_name_must_fit_what_is_spoken(port, probe, found):
    assert {"KW007", "KW008"} & ids(container(ports=[port], readinessProbe=probe)) == found


@pytest.mark.parametrize("name", ["7b", "Chat", "chat-", "a.b", ""])
def test_refused_names(name):
    assert "KW010" in ids(yaml.safe_dump({"metadata": {"name": name}, "spec": {}}))


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"maxReplicas": 0, "minReplicas": 5}, False),
        ({"minReplicas": -1}, True),
        ({"maxReplicas": -1}, True),
        ({"maxReplicas": 1}, False),
        ({"minReplicas": 2, "maxReplicas": 1}, True),
    ],
)
def test_replica_bounds(fields, found):
    assert ("KW011" in ids(predictor(**fields))) is found


@pytest.mark.parametrize(
    ("kserve_class", "metric", "found"),
    [
        (None, "cpu", False),
        ("hpa", "memory", False),
        ("hpa", "concurrency", True),
        ("keda", "memory", True),
        ("external", "anything", False),
    ],
)
def test_scale_metrics_of_standard_mode(kserve_class, metric, found):
    annotations = {"serving.kserve.io/deploymentMode": "RawDeployment"}
    if kserve_class:
        annotations["serving.kserve.io/autoscalerClass"] = kserve_class
    text = {
        "metadata": {"name": "chat", "annotations": annotations},
        "spec": {"predictor": {"scaleMetric": metric}},
    }
    assert ("KW012" in ids(yaml.safe_dump(text))) is found


def test_a_target_below_one_request_per_second_is_refused():
    assert "KW012" in ids(predictor(scaleMetric="rps", scaleTarget=0))


@pytest.mark.parametrize("mode", ["Knative", "Serverless"])
def test_both_names_of_the_knative_mode_count(mode):
    annotations = {"serving.kserve.io/deploymentMode": mode}
    text = {
        "metadata": {"name": "chat", "annotations": annotations},
        "spec": {"predictor": {"hostname": "a"}},
    }
    assert "KW001" in ids(yaml.safe_dump(text))


@pytest.mark.parametrize("args", [["--workers=1"], ["--workers", "1"]])
def test_workers_said_either_way_are_seen(args):
    transformer = {
        "containerConcurrency": 8,
        "containers": [{"name": "kserve-container", "args": args}],
    }
    assert not {"KW018", "KW019"} & ids(yaml.safe_dump({"transformer": transformer}))


@pytest.mark.parametrize(
    ("limit", "rule"), [(None, "KW019"), (1, "KW019"), (0, "KW018"), (8, "KW018")]
)
def test_what_becomes_of_unsaid_workers(limit, rule):
    transformer = {"containers": [{"name": "kserve-container"}], "containerConcurrency": limit}
    found = ids(yaml.safe_dump({"transformer": transformer}))
    assert {"KW018", "KW019"} & found == {rule}


def test_workers_inside_a_shells_script_are_not_seen_as_the_controller_does_not_see_them():
    script = {"command": ["sh", "-c", "exec python -m server --workers=1"]}
    transformer = {"containerConcurrency": 8, "containers": [{"name": "kserve-container"} | script]}
    assert "KW018" in ids(yaml.safe_dump({"transformer": transformer}))


PREFIX = "autoscaling.knative.dev/"


@pytest.mark.parametrize(
    ("key", "value", "rule"),
    [
        ("window", "6s", None),
        ("window", "5s", "KW024"),
        ("window", "90.5s", "KW024"),
        ("window", "1h", None),
        ("window", "1h1s", "KW024"),
        ("window", "60", "KW024"),
        ("scale-to-zero-pod-retention-period", "0s", None),
        ("scale-to-zero-pod-retention-period", "90.5s", None),
        ("scale-to-zero-pod-retention-period", "61m", "KW025"),
        ("scale-down-delay", "1h", None),
        ("scale-down-delay", "-1s", "KW023"),
        ("scale-down-delay", "1.5s", "KW023"),
        ("target", "0.01", None),
        ("target", "0", "KW023"),
        ("target-burst-capacity", "-1", None),
        ("target-burst-capacity", "-2", "KW023"),
        ("target-utilization-percentage", "101", "KW023"),
        ("panic-window-percentage", "0", "KW023"),
        ("panic-threshold-percentage", "100", "KW023"),
        ("panic-threshold-percentage", "200", None),
        ("activation-scale", "1", "KW023"),
        ("initial-scale", "0", "KW023"),
        ("initial-scale", "1", None),
        ("initial-scale", "1.5", "KW023"),
        ("anything-else", "x", None),
    ],
)
def test_values_of_autoscaling_annotations(key, value, rule):
    found = {"KW023", "KW024", "KW025"} & ids(annotated(PREFIX + key, value))
    assert found == ({rule} if rule else set())


def test_an_initial_scale_of_zero_needs_the_clusters_leave():
    text = annotated(f"{PREFIX}initial-scale", "0")
    assert "KW023" not in ids(text, enabled=["allow-zero-initial-scale"])


def test_an_annotation_of_the_service_is_reported_once_for_both_components():
    text = {
        "metadata": {"name": "chat", "annotations": {f"{PREFIX}window": "2h"}},
        "spec": {"predictor": {}, "transformer": {}},
    }
    found = lint([document(yaml.safe_dump(text))]).findings
    assert sum(finding.rule.id == "KW024" for finding in found) == 1


OURS = "keepwarm/predictor-gpu:1"


@pytest.mark.parametrize(
    ("fields", "args", "found"),
    [
        # The default target: 100 x 0.7 over this project's default of 64.
        ({}, [], True),
        ({"scaleTarget": 91}, [], False),
        ({"scaleTarget": 92}, [], True),
        ({"scaleTarget": 92}, ["--max_num_seqs", "128"], False),
        ({"scaleTarget": 92, "containerConcurrency": 32}, [], False),
        ({"scaleTarget": 92, "scaleMetric": "rps"}, [], False),
        ({"annotations": {f"{PREFIX}target": "92"}}, [], True),
        (
            {
                "scaleTarget": 64,
                "annotations": {f"{PREFIX}target-utilization-percentage": "100"},
            },
            [],
            False,
        ),
    ],
)
def test_scaling_out_before_the_engine_is_full(fields, args, found):
    served = [{"name": "kserve-container", "image": OURS, "args": args}]
    assert ("KW027" in ids(predictor(containers=served, **fields))) is found


@pytest.mark.parametrize(
    ("annotations", "probe", "found"),
    [
        ({}, {"periodSeconds": 2, "failureThreshold": 300}, False),
        ({}, {"periodSeconds": 2, "failureThreshold": 301}, True),
        ({}, {"initialDelaySeconds": 580}, True),
        ({"serving.knative.dev/progress-deadline": "60s"}, {"failureThreshold": 7}, True),
        ({"serving.knative.dev/progress-deadline": "70s"}, {"failureThreshold": 7}, False),
    ],
)
def test_the_progress_deadline_covers_the_start(annotations, probe, found):
    served = [{"name": "kserve-container", "startupProbe": {"grpc": {"port": 8081}} | probe}]
    text = predictor(containers=served, annotations=annotations)
    assert ("KW031" in ids(text)) is found
    assert "KW031" not in ids(standard(text))


@pytest.mark.parametrize(
    ("timeout", "given", "found"),
    [
        (None, {}, {"KW032", "KW033"}),
        (301, {}, {"KW033"}),
        (330, {}, set()),
        (200, {}, {"KW032", "KW033"}),
        (200, {"args": ["--max_timeout_s=100", "--drain_s=100"]}, set()),
        (200, {"env": [{"name": "KEEPWARM_MAX_TIMEOUT_S", "value": "100"}]}, {"KW033"}),
        (200, {"image": "example/other:1"}, set()),
        (601, {}, {"KW034"}),
    ],
)
def test_timeouts_against_the_servers_own(timeout, given, found):
    served = [{"name": "kserve-container", "image": OURS} | given]
    text = predictor(containers=served, **({"timeout": timeout} if timeout else {}))
    assert {"KW032", "KW033", "KW034"} & ids(text) == found
    assert "KW034" not in ids(text, enabled=["max-revision-timeout-seconds"])


def test_the_servers_defaults_are_those_of_their_settings():
    for settings in (TransformerSettings, PredictorSettings):
        fields = settings.model_fields
        assert all(fields[name].default == DEFAULTS[name] for name in DEFAULTS if name in fields)
    assert set(DEFAULTS) <= set(PredictorSettings.model_fields)


@pytest.mark.parametrize(
    ("resources", "found"),
    [
        ({"limits": {"nvidia.com/gpu": 1}}, False),
        ({"limits": {"nvidia.com/gpu": "1"}, "requests": {"nvidia.com/gpu": 1}}, False),
        ({"limits": {"nvidia.com/gpu": 2}, "requests": {"nvidia.com/gpu": 1}}, True),
        ({"limits": {"nvidia.com/gpu": "500m"}}, True),
        ({"limits": {"cpu": "500m"}, "requests": {"cpu": "100m"}}, False),
    ],
)
def test_gpus_are_whole_and_limited(resources, found):
    assert ("KW041" in ids(container(resources=resources))) is found


@pytest.mark.parametrize(
    ("image", "found"),
    [
        ("chat", {"KW060"}),
        ("host:5000/chat", {"KW060"}),
        ("chat:latest", {"KW060"}),
        ("host:5000/chat:1", {"KW061"}),
        (f"chat@sha256:{'0' * 64}", set()),
        (f"chat:1@sha256:{'0' * 64}", set()),
    ],
)
def test_tags(image, found):
    assert {"KW060", "KW061"} & ids(container(image=image)) == found


def test_readiness_of_this_projects_servers_is_believed():
    probe = {"httpGet": {"path": "/v2/health/ready", "port": 8080}}
    assert "KW052" in ids(container(readinessProbe=probe))
    assert "KW052" not in ids(container(readinessProbe=probe, image="reg/keepwarm-transformer:1"))


def test_a_model_of_a_serving_runtime_is_not_asked_for_what_the_runtime_brings():
    text = predictor(model={"modelFormat": {"name": "huggingface"}, "args": ["--a"]})
    assert not {"KW040", "KW042", "KW050"} & ids(text)
    lifecycle = {"preStop": {"exec": {"command": ["sleep"]}}}
    assert "KW001" in ids(predictor(model={"lifecycle": lifecycle}))


def test_the_worst_comes_first():
    found = lint([document(predictor(hostname="a", containers=[{"name": "a"}]))]).findings
    ranks = [finding.rule.severity.rank for finding in found]
    assert len(set(ranks)) > 1
    assert ranks == sorted(ranks, reverse=True)


NAMES = """metadata annotations labels containers initContainers model command args env ports name
    resources limits requests volumes volumeMounts securityContext capabilities readinessProbe
    startupProbe httpGet grpc timeout scaleTarget scaleMetric minReplicas maxReplicas image
    containerConcurrency nvidia.com/gpu valueFrom persistentVolumeClaim"""
FIELDS = st.sampled_from(NAMES.split())
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
SHAPES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELDS, inner, max_size=6),
    max_leaves=30,
)
COMPONENTS = st.dictionaries(FIELDS, SHAPES, max_size=8) | SHAPES


@given(SHAPES, COMPONENTS, COMPONENTS)
def test_no_shape_of_a_manifest_breaks_a_rule(metadata, transformer, predictor):
    for mode in ("Knative", "Standard", None):
        annotations = {"annotations": {"serving.kserve.io/deploymentMode": mode}}
        value = {
            "apiVersion": API,
            "kind": "InferenceService",
            "metadata": annotations if mode else metadata,
            "spec": {"transformer": transformer, "predictor": predictor},
        }
        assert lint([Document("x", value)]).services == 1
