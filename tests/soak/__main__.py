"""``python -m tests.soak``: everything fails in random order under load, for ten minutes.

There are a Redis that appends all it does to a file, a gunicorn with two gevent workers and one
with two sync workers, four channels with a publisher each, and 200 clients that come back after
each loss with the id that they have received last. Meanwhile Redis is restarted with all its data
and with older ones, emptied, frozen and disconnected; workers are killed, frozen and replaced;
clients are disconnected, go away, and stop reading. At last everything is left in peace, a last
event is published to each channel, and every record is checked. The status is 1 if anything is
wrong.

With ``--cluster``, there is a Redis Cluster instead, of three primaries and three replicas. Slots
move, primaries fail over, are killed and frozen, nodes come and go, and connections are closed.

What must a client receive, if Redis loses events? What has been in the logs is known exactly.
Redis appends each event to its file before it answers, and before it sends it to anybody. What it
has written survives ``kill -9``, and before a file is replaced by an older copy, it is read. Each
event in it names the one before. So the events are a tree: a log grows along one branch, and goes
on along another one when Redis has gone back in time.

- An event is logged if a file has it. Each one whose ``publish`` has returned must be there, and
  none may be twice in one branch.
- After an event a client may receive nothing but the one that follows it in a branch. So within a
  branch it gets every event, in order, once; and it can't come to another branch without notice,
  however the one that it was on was lost.
- Only after an ``sse.reset`` may it go on elsewhere, and there must be a reason: the place where
  it goes on does not follow from the one where it was, or the events in between are not kept any
  more.
- At last it must be at the newest event. So a client from which events are withheld is found,
  even if none comes after them.

Only one kind of loss passes without a reset: Redis loses events that the client has not received
yet, and goes on from a place that is the client's own or follows from it. To this client nothing
has happened, and the documentation says so. The report counts the events that are lost, and those
of them that no client had received.
"""

import argparse
import secrets
import sys
import tempfile
from pathlib import Path

from tests.soak.run import Plan, soak


def main() -> int:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak")
    parser.add_argument("--seconds", type=float, default=600, help="for how long things fail")
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--pause", type=float, default=4, help="the longest between two faults")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000))
    parser.add_argument("--cluster", action="store_true", help="with a Redis Cluster")
    arguments = parser.parse_args()
    plan = Plan(
        arguments.seconds,
        arguments.clients,
        arguments.seed,
        arguments.pause,
        is_on_cluster=arguments.cluster,
    )
    print(f"seed {plan.seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        report = soak(plan, Path(folder))
    print("\n".join(report.lines()), flush=True)
    return 0 if report.is_sound else 1


if __name__ == "__main__":
    sys.exit(main())
