"""What is answered where something is not: OpenAI's form of an error, with a sentence in it."""

import logging
from typing import Any

from starlette.responses import JSONResponse

from storygen import logs, metrics
from storygen.errors import (
    BusyError,
    ModelNotFoundError,
    ParamsError,
    PromptError,
    QuotaError,
    StorygenError,
)

NOT_KEPT = {"cache-control": "no-store"}
BUSY_SECONDS, QUOTA_SECONDS = 2, 60  # until it is worth another try, as far as one knows
TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "service_unavailable_error",
}
logger = logging.getLogger(__name__)


class Refused(Exception):
    """A request that is answered with a status and a sentence; param is the field it is about."""

    def __init__(
        self,
        status: int,
        sentence: str,
        *,
        param: str | None = None,
        code: str | None = None,
        wait: int = 0,
    ) -> None:
        super().__init__(sentence)
        self.status, self.param, self.code, self.wait = status, param, code, wait

    @property
    def body(self) -> dict[str, Any]:
        """As OpenAI's clients read it."""
        kind = TYPES.get(self.status, "invalid_request_error")
        told = {"message": str(self), "type": kind, "param": self.param, "code": self.code}
        return {"error": told}

    def response(self) -> JSONResponse:
        """The answer."""
        more = {"retry-after": str(self.wait)} if self.wait else {}
        if self.status == 401:
            more["www-authenticate"] = "Bearer"
        return JSONResponse(self.body, self.status, NOT_KEPT | more)


def refused(error: Exception) -> Refused:
    """How an error is told; what we did wrong is in the log, with the number in the message."""
    if isinstance(error, Refused):
        return error
    metrics.error_told(error)
    if isinstance(error, ModelNotFoundError):
        return Refused(404, str(error), param="model", code="model_not_found")
    if isinstance(error, ParamsError):
        sentence = str(error).replace("max_new_tokens", "max_tokens")
        name = sentence.split(" ", 1)[0]
        return Refused(400, sentence, param="storygen.banned" if name == "banned" else name)
    if isinstance(error, PromptError):
        return Refused(400, str(error), param="prompt")
    if isinstance(error, QuotaError):
        return Refused(429, str(error), code="quota", wait=QUOTA_SECONDS)
    if isinstance(error, BusyError):
        return Refused(429, str(error), code="busy", wait=BUSY_SECONDS)
    if isinstance(error, StorygenError):
        return Refused(503, str(error), code="engine_error")
    number = logs.number()  # the line below carries it, too
    logger.error("Error in the API", exc_info=error)
    return Refused(500, f"That could not be done (number {number} in the log).")
