"""Publishes the events about members, like the events of the application.

Only the thread of a roster uses it. It blocks until Redis has answered.
"""

from collections.abc import Callable

from flask import Flask

from flask_sse._callbacks.receivers import Notices
from flask_sse._event import channel_name
from flask_sse._event.message import Message, split_payload, to_payload
from flask_sse._presence.registrar import Announcement
from flask_sse._redis.log_commands import NewEntry
from flask_sse._redis.publisher import Publisher
from flask_sse._settings import Settings
from flask_sse.signals import message_published


class Announcer:
    """Publishes events about the members of an application's channels.

    :param notices: Sends the signal about a published message, if it has receivers.
    :param wake_hubs: Called after an event has been published.
    """

    def __init__(
        self,
        app: Flask,
        publisher: Publisher,
        settings: Settings,
        notices: Notices,
        wake_hubs: Callable[[], None],
    ) -> None:
        self._app = app
        self._publisher = publisher
        self._settings = settings
        self._notices = notices
        self._wake_hubs = wake_hubs

    def announce(self, announcement: Announcement) -> None:
        """Publish an event about a member.

        :raises redis.RedisError: if Redis can't be reached, does not answer or refuses.
        """
        name, kind, client = announcement
        channel = channel_name.to_text(name)
        message = Message({"channel": channel, "client": client}, type=kind)
        number = self._publish(name, message)
        self._wake_hubs()
        if message_published.receivers:
            with self._app.app_context():
                values = {"channel": channel, "message": message, "processes": number}
                self._notices.send(message_published, **values)

    def _publish(self, name: bytes, message: Message) -> int:
        provider, settings = self._app.json, self._settings
        retention = settings.retention(name)
        if retention is None:
            return self._publisher.publish(name, to_payload(message, provider))
        parts = split_payload(message, provider)
        event = NewEntry(*parts, retention.length, settings.history_ttl)
        return self._publisher.append(name, event)
