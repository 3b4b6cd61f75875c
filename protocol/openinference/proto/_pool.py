"""The descriptor pool that our generated module uses in place of the process-wide default."""

from google.protobuf import descriptor_pool

_POOL = descriptor_pool.DescriptorPool()


def Default() -> descriptor_pool.DescriptorPool:  # noqa: N802 (the name that generated code calls)
    """Our own pool, under the name by which generated code asks for the default one."""
    return _POOL
