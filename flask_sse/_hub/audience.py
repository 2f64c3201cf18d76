"""The channels and their listeners, and the events that they get.

It knows no sockets and no Redis. Only the hub's loop uses it. Nothing blocks except the
`pause` function that is passed in.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

from flask.json.provider import JSONProvider

from flask_sse._callbacks.receivers import Notices
from flask_sse._event import channel_name
from flask_sse._event.channel_name import Key
from flask_sse._event.message import to_frame
from flask_sse._hub.batch import Batch
from flask_sse._hub.bundle import Bundle
from flask_sse._hub.channel import Channel
from flask_sse._hub.complaints import Complaints
from flask_sse._hub.listener import Client, Listener
from flask_sse._hub.log_queries import Logs
from flask_sse._hub.logged_channel import LoggedChannel
from flask_sse._log.decoding import Event, Foreign
from flask_sse._system.clock import monotonic
from flask_sse.signals import messages_delivered


class Audience:
    """The channels that have listeners.

    :param logs: The channels with history; `None` if none has.
    :param notices: Sends the signals about delivered messages, if they have receivers.
    :param note_change: Called with a channel's name when it may have its first listener, or has
        lost its last one.
    :param pause: Called now and then, to let others run.
    """

    def __init__(
        self,
        provider: JSONProvider,
        logs: Logs | None,
        notices: Notices | None,
        note_change: Callable[[bytes], None],
        pause: Callable[[], None],
    ) -> None:
        self.complaints = Complaints()
        self._provider = provider
        self._logs = logs
        self._notices = notices
        self._note_change = note_change
        self._pause = pause
        self._channels: dict[bytes, Channel] = {}
        self._bundles: dict[tuple[bytes, ...], Bundle] = {}

    def __bool__(self) -> bool:
        return bool(self._channels)

    def __iter__(self) -> Iterator[Channel | Bundle]:
        """Iterate over a snapshot of the bundles and the channels."""
        return iter([*self._bundles.values(), *self._channels.values()])

    @property
    def names(self) -> Collection[bytes]:
        """The names of the channels."""
        return self._channels

    def get(self, key: Key) -> Channel | Bundle | None:
        """Return a channel or a bundle that has listeners."""
        return self._channels.get(key) if isinstance(key, bytes) else self._bundles.get(key)

    def channel(self, name: bytes) -> Channel | None:
        """Return a channel that has listeners."""
        return self._channels.get(name)

    def open(self, key: Key) -> Channel | Bundle:
        """Return a channel or a bundle, which is about to have a listener."""
        if isinstance(key, bytes):
            return self._open_channel(key)
        bundle = self._bundles.get(key)
        if bundle is None:
            bundle = self._bundles[key] = Bundle([self._open_channel(name) for name in key])
        return bundle

    def _open_channel(self, name: bytes) -> Channel:
        channel = self._channels.get(name)
        if channel is None:
            logged = None if self._logs is None else self._logs.new_channel(name, self._pause)
            channel = self._channels[name] = Channel(name) if logged is None else logged
            channel.report = self._report
        self._note_change(name)
        return channel

    def discard(self, client: Client) -> None:
        """Forget a client, if it is known, and its channels, if it was their last one."""
        key = client.channel
        found = self.get(key)
        if found is None:
            return
        found.discard(client)
        if isinstance(found, Bundle) and isinstance(key, tuple) and not found:
            del self._bundles[key]
            found.close()
        for channel in found.channels:
            # If Redis has refused one, it is not there any more.
            if not channel and self._channels.get(channel.name) is channel:
                self.close(channel.name)

    def close(self, name: bytes) -> Channel | None:
        """Forget a channel, and return it."""
        channel = self._channels.pop(name, None)
        if channel is not None:
            self._note_change(name)
            if self._logs is not None:
                self._logs.forget(channel)
        return channel

    def sent(self, key: Key) -> float | None:
        """Return when the listeners of a channel or a bundle last got an event."""
        found = self.get(key)
        return None if found is None else max([channel.sent for channel in found.channels])

    def arrived(self, name: bytes, payloads: Sequence[bytes]) -> Iterable[Listener]:
        """Pass events on to the listeners of a channel; return those that must be dropped."""
        channel = self._channels.get(name)
        if channel is None or not payloads:
            return ()
        if isinstance(channel, LoggedChannel):
            return channel.arrived([*self._decoded(name, payloads)])
        batch = self._to_batch(name, payloads)
        return channel.send(batch, self._pause) if batch.frames else ()

    def _to_batch(self, name: bytes, payloads: Iterable[bytes]) -> Batch:
        sound: list[bytes] = []
        frames: list[bytes] = []
        for payload in payloads:
            try:
                frames.append(to_frame(payload, self._provider))
            except Exception as error:  # noqa: BLE001 - a JSON provider may raise anything
                self.complaints.malformed(name, error)
            else:
                sound.append(payload)
        return Batch(sound, frames[0] if len(frames) == 1 else b"".join(frames))

    def _decoded(self, name: bytes, payloads: Iterable[bytes]) -> Iterator[Event]:
        """Decode events of a channel with history."""
        assert self._logs is not None
        for payload in payloads:
            try:
                event = self._logs.decode(payload)
            except Exception as error:  # noqa: BLE001 - a JSON provider may raise anything
                self.complaints.malformed(name, error)
                continue
            if isinstance(event, Foreign):
                self.complaints.foreign(name)
            yield event

    def _report(self, channel: Channel, batch: Batch, listeners: int, *, replayed: bool) -> None:
        notices = self._notices
        if (
            notices is None
            or not messages_delivered.receivers
            or not batch.payloads
            or not listeners
        ):
            return
        notices.later(
            messages_delivered,
            channel=channel_name.to_text(channel.name),
            messages=len(batch.payloads),
            listeners=listeners,
            lagging=channel.lagging,
            duration=0.0 if replayed else monotonic() - batch.time,
            replayed=replayed,
        )
