"""The logic analyzer of a device: what it can see, triggers by name, captures, and files that viewers read."""

from .analyzer import LogicAnalyzer, State, Status
from .capture import Capture, Probe
from .files import FORMATS, write
from .trigger import Program, compile_trigger

__all__ = ["FORMATS", "Capture", "LogicAnalyzer", "Probe", "Program", "State", "Status", "compile_trigger", "write"]
