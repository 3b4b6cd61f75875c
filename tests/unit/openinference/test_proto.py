"""Our descriptor against those that clients carry.

Each comparison runs in a process of its own: KServe and tritonclient register the same names in one
descriptor pool, so the two exclude each other; ours has its own pool and lives beside either.
"""

import json
import subprocess
import sys

import pytest

from openinference.proto import inference_pb2 as pb

SCRIPT = """
import importlib, json, sys
from openinference.proto import inference_pb2 as ours

def described(module):
    def fields(message):
        return {
            field.name: [
                field.number,
                field.type,
                field.is_repeated,
                field.message_type and field.message_type.full_name,
                field.containing_oneof and field.containing_oneof.name,
            ]
            for field in message.fields
        }

    def messages(container):
        for message in container.values():
            yield message.full_name, fields(message)
            yield from messages(message.nested_types_by_name)

    service = module.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    methods = {
        method.name: [
            method.input_type.full_name,
            method.output_type.full_name,
            method.client_streaming,
            method.server_streaming,
        ]
        for method in service.methods
    }
    return dict(messages(module.DESCRIPTOR.message_types_by_name)), methods

theirs = importlib.import_module(sys.argv[1])
request = ours.ModelInferRequest(model_name="m", raw_input_contents=[b"a"])
again = theirs.ModelInferRequest.FromString(request.SerializeToString())
assert (again.model_name, list(again.raw_input_contents)) == ("m", [b"a"])
print(json.dumps([described(ours), described(theirs)]))
"""

TRITON = "tritonclient.grpc.service_pb2"
KSERVE = "kserve.protocol.grpc.grpc_predict_v2_pb2"
# What OIP's specification has and a client has not caught up with.
NEWER = {
    TRITON: {("inference.ModelMetadataResponse", "properties")},
    KSERVE: {
        ("inference.ModelMetadataResponse", "properties"),
        ("inference.InferParameter", "double_param"),
        ("inference.InferParameter", "uint64_param"),
    },
}


@pytest.fixture(scope="module", params=NEWER)
def sides(request):
    """(client's module, (our messages, our methods), (theirs, theirs))."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT, request.param],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    ours, theirs = json.loads(done.stdout.splitlines()[-1])
    return request.param, ours, theirs


def test_messages_that_both_define_have_the_same_fields(sides):
    client, (ours, _), (theirs, _) = sides
    both = ours.keys() & theirs.keys()
    assert {"inference.ModelInferRequest", "inference.ModelInferResponse"} <= both
    newer = set()
    for message in both:
        assert theirs[message].items() <= ours[message].items(), message
        newer |= {(message, field) for field in ours[message].keys() - theirs[message].keys()}
    assert newer <= NEWER[client]


def test_methods_that_both_define_take_and_give_the_same_messages(sides):
    _, (_, ours), (_, theirs) = sides
    both = ours.keys() & theirs.keys()
    assert {"ServerLive", "ServerReady", "ModelReady", "ModelMetadata", "ModelInfer"} <= both
    assert {name: ours[name] for name in both} == {name: theirs[name] for name in both}


def test_nobody_can_load_or_unload_a_model():
    methods = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods
    assert not [method.name for method in methods if method.name.endswith(("Load", "Unload"))]
