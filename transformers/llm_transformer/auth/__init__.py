"""Who calls: the only stage that says which tenant a request is for, with which plan."""

from llm_transformer.auth.authenticator import Authenticator
from llm_transformer.auth.identity import ANONYMOUS, Identity

__all__ = ["ANONYMOUS", "Authenticator", "Identity"]
