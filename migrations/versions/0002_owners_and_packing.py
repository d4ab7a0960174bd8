"""Runs that change owners, and logs that are packed. Expands only: a replica of the version before works on."""

from alembic import op

revision = "0002"
down_revision = "0001"

UPGRADE = (
    "ALTER TABLE runs ADD COLUMN crashes int NOT NULL DEFAULT 0, ADD COLUMN packed boolean NOT NULL DEFAULT false",
    # Fenced by its own wish, so that whoever takes over its runs counts no crash.
    "ALTER TABLE replicas ADD COLUMN retired boolean NOT NULL DEFAULT false",
    "CREATE INDEX runs_to_cancel ON runs (owner) WHERE state = 'RUNNING' AND cancel_requested",
    "CREATE INDEX runs_to_pack ON runs (end_time) WHERE end_time IS NOT NULL AND NOT packed",
    # A table of its own: rows left in run_events would each hold a page of its index for ever (9 kB a run, measured).
    # seq is that of the last event in the row; texts of the answer are cut out of the message, text_offset and
    # text_length in bytes.
    """CREATE TABLE packed_events (
        workspace_id uuid NOT NULL,
        run_id uuid NOT NULL,
        seq int NOT NULL,
        text_offset int NOT NULL,
        text_length int NOT NULL,
        packed bytea NOT NULL,
        PRIMARY KEY (workspace_id, run_id, seq))""",
)
DOWNGRADE = (
    "DROP TABLE packed_events",
    "DROP INDEX runs_to_cancel",
    "ALTER TABLE replicas DROP COLUMN retired",
    "ALTER TABLE runs DROP COLUMN crashes, DROP COLUMN packed",
)


def upgrade() -> None:
    """Adds columns with defaults, two small partial indexes and the table of packed events."""
    for statement in UPGRADE:
        op.execute(statement)


def downgrade() -> None:
    """Drops them, and with them the events that were packed."""
    for statement in DOWNGRADE:
        op.execute(statement)
