"""orders, as `alembic revision --autogenerate -m orders` writes it"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "orders",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("note", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.install_trigger("orders", to="orders", columns=["state"])


def downgrade() -> None:
    op.drop_trigger("orders")
    op.drop_table("orders")
