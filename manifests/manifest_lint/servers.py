"""What a container's server was told: by flag, by environment variable, by default."""

from manifest_lint.inference_service import Container
from manifest_lint.quantities import number

ENV_PREFIX = "KEEPWARM_"
# Those of this project's servers (docs/settings.md); a test holds the two together.
DEFAULTS = {"max_timeout_s": 300.0, "drain_s": 300.0, "max_num_seqs": 64.0}


def setting(container: Container | None, name: str) -> float | None:
    """The number that the server works with, None where the manifest does not tell."""
    if container is None:
        return None
    said = container.flag(name)
    if said is None:
        variable = f"{ENV_PREFIX}{name.upper()}"
        said = next((v.get("value") for v in container.env if v.get("name") == variable), None)
    if said is not None:
        return number(said)
    return DEFAULTS[name] if container.ours else None
