"""What is counted for each request, at both edges."""

import asyncio
from contextlib import asynccontextmanager

import grpc
import pytest
from prometheus_client import REGISTRY

from openinference import errors, v2_grpc
from openinference.messages import InferRequest, bytes_tensor
from openinference.proto.inference_pb2_grpc import GRPCInferenceServiceStub

JSON = {"inputs": [{"name": "text_input", "shape": [1], "datatype": "BYTES", "data": ["Hi"]}]}
MESSAGE = v2_grpc.encode_request(InferRequest("m", [bytes_tensor("text_input", ["Hi"])]))


def _sample(name, **labels):
    return REGISTRY.get_sample_value(name, labels) or 0


class Counted:
    """How many requests of an endpoint were answered with each of these statuses since."""

    def __init__(self, endpoint, *statuses):
        self.endpoint = endpoint
        self.before = {status: self._now(status) for status in statuses}

    def _now(self, status):
        return _sample("keepwarm_requests_total", endpoint=self.endpoint, status=status)

    def since(self):
        return {status: self._now(status) - count for status, count in self.before.items()}


def _in_flight(endpoint):
    return _sample("keepwarm_requests_in_flight", endpoint=endpoint)


@pytest.mark.parametrize(
    ("script", "headers", "status"),
    [
        (None, {}, "200"),
        ([errors.RateLimited("slow down", retry_after_s=1)], {}, "429"),
        ([ValueError("a bug")], {}, "500"),
        (None, {"x-request-timeout": "soon"}, "400"),
        (None, {"content-encoding": "br"}, "415"),
    ],
)
async def test_a_rest_request_is_counted_with_its_status(rest, service, script, headers, status):
    counted = Counted("infer", "200", "400", "415", "429", "500", "cancelled")
    service.script = script
    await rest.post("/v2/models/m/infer", json=JSON, headers=headers)
    assert {key for key, count in counted.since().items() if count} == {status}
    assert _in_flight("infer") == 0


@pytest.fixture
def called(service, grpc_server):
    """A stub; when its context ends, every call has ended on the server and is counted."""

    @asynccontextmanager
    async def call():
        async with (
            grpc_server(service, grace_s=30) as target,
            grpc.aio.insecure_channel(target) as channel,
        ):
            yield GRPCInferenceServiceStub(channel)

    return call


@pytest.mark.parametrize(
    ("script", "metadata", "status"),
    [
        (None, (), "OK"),
        ([errors.RateLimited("slow down", retry_after_s=1)], (), "RESOURCE_EXHAUSTED"),
        ([ValueError("a bug")], (), "INTERNAL"),
        (None, (("x-request-timeout", "soon"),), "INVALID_ARGUMENT"),
    ],
)
async def test_a_grpc_request_is_counted_with_its_status(called, service, script, metadata, status):
    counted = Counted(
        "grpc_ModelInfer", "OK", "RESOURCE_EXHAUSTED", "INTERNAL", "INVALID_ARGUMENT", "cancelled"
    )
    service.script = script
    async with called() as stub:
        await asyncio.gather(stub.ModelInfer(MESSAGE, metadata=metadata), return_exceptions=True)
    assert {key for key, count in counted.since().items() if count} == {status}
    assert _in_flight("grpc_ModelInfer") == 0


async def test_each_request_of_a_stream_is_counted(called):
    counted = Counted("grpc_ModelStreamInfer", "OK", "NOT_FOUND")
    unknown = v2_grpc.encode_request(InferRequest("x", [bytes_tensor("text_input", ["Hi"])]))
    async with called() as stub:
        async for _ in stub.ModelStreamInfer(iter([MESSAGE, unknown, MESSAGE])):
            pass
    assert counted.since() == {"OK": 2, "NOT_FOUND": 1}


async def test_a_request_that_its_caller_left_is_counted_as_cancelled(called, service):
    counted = Counted("grpc_ModelInfer", "OK", "cancelled")
    service.script = [asyncio.Event()]
    async with called() as stub:
        call = stub.ModelInfer(MESSAGE)
        await service.began.wait()
        assert _in_flight("grpc_ModelInfer") == 1
        call.cancel()
        await service.until_ended()
        with pytest.raises(asyncio.CancelledError):
            await call
    assert counted.since() == {"OK": 0, "cancelled": 1}
    assert _in_flight("grpc_ModelInfer") == 0
