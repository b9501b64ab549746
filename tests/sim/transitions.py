"""x"""
from typing import Any
Recorder = Any
