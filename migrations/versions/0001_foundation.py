"""Users, sessions, conversations, messages, runs and their log."""

from alembic import op

revision = "0001"
down_revision = None

TABLES = {
    "workspaces": """(
        workspace_id uuid PRIMARY KEY,
        create_time timestamptz NOT NULL)""",
    "users": """(
        workspace_id uuid NOT NULL REFERENCES workspaces,
        user_id uuid PRIMARY KEY,
        email text COLLATE "C" NOT NULL CONSTRAINT users_email_key UNIQUE,
        display_name text NOT NULL,
        role text NOT NULL,
        password_hash text NOT NULL,
        create_time timestamptz NOT NULL)""",
    "sessions": """(
        workspace_id uuid NOT NULL,
        user_id uuid NOT NULL REFERENCES users,
        session_id uuid PRIMARY KEY,
        salt bytea NOT NULL,
        generation int NOT NULL,
        rotate_time timestamptz NOT NULL,
        expire_time timestamptz NOT NULL,
        end_time timestamptz)""",
    "revocations": """(
        session_id uuid PRIMARY KEY,
        create_time timestamptz NOT NULL)""",
    "deployment_keys": """(
        name text PRIMARY KEY,
        value bytea NOT NULL,
        create_time timestamptz NOT NULL DEFAULT now())""",
    # title_folded: the title's case folded by Unicode's rules, which the database's locale may not know.
    "conversations": """(
        workspace_id uuid NOT NULL,
        user_id uuid NOT NULL REFERENCES users,
        conversation_id uuid NOT NULL,
        title text NOT NULL,
        title_folded text NOT NULL,
        metadata jsonb NOT NULL,
        leaf_message_id uuid,
        create_time timestamptz NOT NULL,
        update_time timestamptz NOT NULL,
        delete_time timestamptz,
        PRIMARY KEY (workspace_id, conversation_id))""",
    # An answer is stored empty and filled at its end: room on its page keeps the indexes out of that.
    "messages": """(
        workspace_id uuid NOT NULL,
        conversation_id uuid NOT NULL,
        message_id uuid NOT NULL,
        parent_message_id uuid,
        run_id uuid,
        create_time timestamptz NOT NULL,
        depth int NOT NULL,
        input_tokens int NOT NULL,
        output_tokens int NOT NULL,
        role text NOT NULL,
        status text NOT NULL,
        model text NOT NULL,
        content text NOT NULL,
        PRIMARY KEY (workspace_id, message_id),
        FOREIGN KEY (workspace_id, conversation_id) REFERENCES conversations) WITH (fillfactor = 70)""",
    "runs": """(
        workspace_id uuid NOT NULL,
        user_id uuid NOT NULL,
        conversation_id uuid NOT NULL,
        message_id uuid NOT NULL,
        run_id uuid NOT NULL,
        owner uuid NOT NULL,
        owned_since timestamptz NOT NULL DEFAULT clock_timestamp(),
        create_time timestamptz NOT NULL,
        end_time timestamptz,
        attempt int NOT NULL,
        last_seq int,
        input_tokens int NOT NULL DEFAULT 0,
        output_tokens int NOT NULL DEFAULT 0,
        cancel_requested boolean NOT NULL DEFAULT false,
        state text NOT NULL,
        model text NOT NULL,
        options jsonb NOT NULL,
        failure_reason text,
        failure_message text,
        PRIMARY KEY (workspace_id, run_id))""",
    # The busiest table by far: one row per piece of an answer, no foreign key, no second index.
    "run_events": """(
        workspace_id uuid NOT NULL,
        run_id uuid NOT NULL,
        seq int NOT NULL,
        attempt int NOT NULL,
        create_time timestamptz NOT NULL,
        kind smallint NOT NULL,
        payload text NOT NULL,
        PRIMARY KEY (workspace_id, run_id, seq))""",
    "requests": """(
        workspace_id uuid NOT NULL,
        user_id uuid NOT NULL,
        request_id text COLLATE "C" NOT NULL,
        digest bytea NOT NULL,
        resource_id uuid NOT NULL,
        create_time timestamptz NOT NULL,
        PRIMARY KEY (workspace_id, user_id, request_id))""",
    # A few rows, each rewritten every few seconds.
    "replicas": """(
        replica_id uuid PRIMARY KEY,
        lease_until timestamptz NOT NULL,
        fenced boolean NOT NULL DEFAULT false,
        create_time timestamptz NOT NULL DEFAULT now()) WITH (fillfactor = 50)""",
}

INDEXES = {
    "sessions_open": "sessions (user_id) WHERE end_time IS NULL",
    "revocations_newest": "revocations (create_time)",
    "conversations_by_activity": """
        conversations (workspace_id, user_id, update_time DESC, conversation_id DESC) WHERE delete_time IS NULL""",
    "conversations_hidden": "conversations (delete_time) WHERE delete_time IS NOT NULL",
    "messages_of_conversation": "messages (workspace_id, conversation_id)",
    "runs_running": "runs (owner, create_time) WHERE state = 'RUNNING'",
    "runs_running_in": "runs (workspace_id, conversation_id) WHERE state = 'RUNNING'",
    "requests_oldest": "requests (create_time)",
}


def upgrade() -> None:
    """Creates all tables and indexes."""
    for table, columns in TABLES.items():
        op.execute(f"CREATE TABLE {table} {columns}")
    for index, columns in INDEXES.items():
        op.execute(f"CREATE INDEX {index} ON {columns}")


def downgrade() -> None:
    """Drops all tables, those that refer to others first."""
    for table in reversed(TABLES):
        op.execute(f"DROP TABLE {table}")
