"""A stream for clients that send a token in a header."""

import os
from hmac import compare_digest

from flask import Flask, abort, request

from flask_sse import sse

app = Flask(__name__)
app.config["REDIS_URL"] = os.environ.get("REDIS_URL", "redis://localhost")
TOKEN = os.environ["STREAM_TOKEN"]


@sse.before_request
def check_token() -> None:
    """Refuse requests without the token. Preflight requests of browsers never carry one."""
    if request.method == "OPTIONS":
        return
    given = request.authorization
    token = given.token if given is not None and given.type == "bearer" else None
    if not compare_digest((token or "").encode(), TOKEN.encode()):
        abort(401)


app.register_blueprint(sse, url_prefix="/stream")
