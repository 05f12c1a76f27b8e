"""What a plugin imports: ``from bulkhead import Plugin``.

A plugin runs in a host process of its own (``python -m bulkhead.host``), which the coordinator starts; nothing
here starts a process or opens a socket.
"""

from bulkhead.batch import Batch
from bulkhead.context import Context, Control, Facts, facts
from bulkhead.plugin import Plugin

__all__ = ["Batch", "Context", "Control", "Facts", "Plugin", "facts"]
__version__ = "0.1.0"
