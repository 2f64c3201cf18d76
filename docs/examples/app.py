"""An application that greets everyone who has its page open."""

from flask import Flask

from flask_sse import sse

app = Flask(__name__)
app.config["REDIS_URL"] = "redis://localhost"
app.register_blueprint(sse, url_prefix="/stream")


@app.route("/hello")
def hello() -> str:
    """Tell everybody."""
    sse.publish({"message": "Hello!"}, type="greeting")
    return "Message sent!"
