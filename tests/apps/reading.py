"""The site with a function that reads the body of each response, for example to log it."""

from flask import Response

from tests.apps.site import app

__all__ = ["app"]


@app.after_request
def read(response: Response) -> Response:
    """Read the body."""
    response.direct_passthrough = False
    response.get_data()
    return response
