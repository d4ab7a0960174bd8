"""The client for a terminal: signing in, and the chat."""

import os

# gRPC reads this once, when it is first imported; otherwise it writes about lost connections across the answers.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
