"""The site behind the middlewares of tools that watch requests."""

from typing import TYPE_CHECKING

import sentry_sdk
from opentelemetry.instrumentation.wsgi import OpenTelemetryMiddleware
from sentry_sdk.integrations.wsgi import SentryWsgiMiddleware

from tests.apps.site import app as site

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

sentry_sdk.init()

sentry: "WSGIApplication" = SentryWsgiMiddleware(site)
opentelemetry: "WSGIApplication" = OpenTelemetryMiddleware(site)
