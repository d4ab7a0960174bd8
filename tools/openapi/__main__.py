"""Writes the document of the contract in an image of `buf build` to standard output: -m tools.openapi IMAGE."""

import json
import sys
import tomllib
from pathlib import Path

from tools.openapi.contract import read_contract
from tools.openapi.document import document

PROJECT = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]

made = document(
    read_contract(Path(sys.argv[1]).read_bytes()), version=PROJECT["version"], description=PROJECT["description"]
)
sys.stdout.buffer.write(json.dumps(made, ensure_ascii=False, indent=1).encode() + b"\n")
