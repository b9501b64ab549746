"""Orders whose changes are told. `alembic upgrade head` makes the table and its trigger.

pip install 'pgpubsub[binary,sqlalchemy,alembic,typed]'
"""

import os
from typing import Any

from sqlalchemy import create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

import pgpubsub
from pgpubsub.contrib.sqlalchemy import conninfo, trigger


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(primary_key=True)
    state: Mapped[str]
    note: Mapped[str | None]


trigger(Order, to="orders", columns=["state"])

engine = create_engine(os.environ.get("DATABASE_URL", "postgresql+psycopg://postgres@/test"))
orders = pgpubsub.Channel("orders", pgpubsub.Change[dict[str, Any]])

if __name__ == "__main__":
    with pgpubsub.Hub(conninfo(engine)) as hub, hub.subscribe(orders) as events, Session(engine) as session:
        order = Order(state="open")
        session.add(order)
        session.commit()
        order.note = "is not watched"
        session.commit()
        order.state = "paid"
        session.commit()
        for _ in range(2):
            event = events.get(timeout=10)
            if isinstance(event, pgpubsub.Notify):
                print(event.payload.op, event.payload.row)
