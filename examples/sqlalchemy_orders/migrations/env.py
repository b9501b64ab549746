from alembic import context
from sqlalchemy_orders import Base, engine

import pgpubsub.contrib.alembic  # noqa: F401  the one line that it takes

if context.is_offline_mode():
    context.configure(url=engine.url, target_metadata=Base.metadata)
    with context.begin_transaction():
        context.run_migrations()
else:
    with engine.connect() as connection:
        context.configure(connection=connection, target_metadata=Base.metadata)
        with context.begin_transaction():
            context.run_migrations()
