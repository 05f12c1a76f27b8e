"""What a plugin imports: ``from bulkhead import Plugin``.

A plugin runs in a host process of its own (``python -m bulkhead.host``), which the coordinator starts; nothing
here starts a process or opens a socket.
"""

from bulkhead.asking import AskFailed
from bulkhead.batch import Batch
from bulkhead.context import Context, Facts, facts
from bulkhead.control import Control
from bulkhead.plugin import Plugin
from bulkhead.registry import register
from bulkhead.samples import Sample

__all__ = ["AskFailed", "Batch", "Context", "Control", "Facts", "Plugin", "Sample", "facts", "register"]
__version__ = "0.1.0"
