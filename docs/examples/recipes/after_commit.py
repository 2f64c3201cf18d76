"""Events that are published when the database has committed, and not before."""

import os
from typing import Any

from flask import Flask, request
from sqlalchemy import create_engine, event
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from flask_sse import sse

app = Flask(__name__)
app.config["REDIS_URL"] = os.environ.get("REDIS_URL", "redis://localhost")
app.register_blueprint(sse, url_prefix="/stream")
engine = create_engine(os.environ["DATABASE_URL"])


class Base(DeclarativeBase):
    """What all models have."""


class Order(Base):
    """An order."""

    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    item: Mapped[str]


Base.metadata.create_all(engine)


def publish_after_commit(session: Session, data: Any, **options: Any) -> None:
    """Publish with the next commit of the session, or never if it is rolled back."""
    session.info.setdefault("events", []).append((data, options))


@event.listens_for(Session, "after_commit")
def publish_events(session: Session) -> None:
    """Publish the events that were waiting for the commit."""
    for data, options in session.info.pop("events", []):
        sse.publish(data, **options)


@event.listens_for(Session, "after_rollback")
def forget_events(session: Session) -> None:
    """Publish nothing about changes that have not happened."""
    session.info.pop("events", None)


@app.post("/orders")
def add_order() -> dict[str, int]:
    """Add an order, and tell the pages."""
    with Session(engine) as session:
        order = Order(item=request.form["item"])
        session.add(order)
        session.flush()  # the database chooses the id
        publish_after_commit(session, {"id": order.id}, type="order")
        session.commit()
        return {"id": order.id}
