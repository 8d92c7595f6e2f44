"""Tests on several hosts; see tools/local_hosts."""

import importlib
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))
local_hosts = importlib.import_module("local_hosts.hosts")
