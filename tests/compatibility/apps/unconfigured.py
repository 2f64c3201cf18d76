"""An application that has not set the URL of its Redis."""

from flask import Flask

from flask_sse import sse

app = Flask(__name__)
app.register_blueprint(sse, url_prefix="/stream")


@app.route("/publish")
def publish():
    """Try to publish."""
    try:
        sse.publish("hello")
    except KeyError as error:
        return str(error)
    return "published"
