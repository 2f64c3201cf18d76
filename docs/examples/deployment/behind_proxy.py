"""The application that the other files on this page start."""

import os

from flask import Flask
from werkzeug.middleware.proxy_fix import ProxyFix

from flask_sse import sse

app = Flask(__name__)
app.config["REDIS_URL"] = os.environ["REDIS_URL"]
app.register_blueprint(sse, url_prefix="/stream")
# There is one proxy in front, which says who the client is and whether it uses TLS.
app.wsgi_app = ProxyFix(app.wsgi_app, x_for=1, x_proto=1)  # type: ignore[method-assign]


@app.get("/hello")
def hello() -> str:
    """Tell everybody."""
    sse.publish({"message": "Hello!"}, type="greeting")
    return "Message sent!"
