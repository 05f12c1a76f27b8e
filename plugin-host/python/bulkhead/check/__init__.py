"""``python -m bulkhead.check FILE``: a plugin alone in its process, every hook that it has called a few times.

The tool is coordinator and worker in one: it starts the host that would run the plugin, speaks protocol/README.md with
it, fires the hooks in the order of a run's stream with inputs of plausible shapes, and says how long each took and
what went wrong.  Exit status: 0 clean, 1 the plugin misbehaved, 2 refused (a wrong file or argument).
"""
