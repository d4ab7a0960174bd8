"""The generated API of ChatBack; the contract itself is in the .proto files."""
