"""What is sent to the evaluated model."""

from lm_eval_inversion.queries.conversations import (
    Message,
    SystemRole,
    conversation,
    detect_system_role,
    require_prompt_in_request,
    require_room,
    user_turn,
)
from lm_eval_inversion.queries.sets import Query, QuerySet, load_query_set, query_set_names

__all__ = [
    "Message",
    "Query",
    "QuerySet",
    "SystemRole",
    "conversation",
    "detect_system_role",
    "load_query_set",
    "query_set_names",
    "require_prompt_in_request",
    "require_room",
    "user_turn",
]
