"""Makes conversations of Alpaca's columns: instruction, input, output.

    data: {type: rows, path: alpaca.jsonl}
    plugins:
      - use: alpaca_rows

The user says the instruction, with the input on a line of its own where there is one; the assistant says the output,
which is what the model learns.  (Twinkle's AlpacaProcessor.)
"""

from bulkhead import Plugin


class AlpacaRows(Plugin):
    stateless = True

    def __init__(self):
        pass

    def preprocess(self, rows, ctx):
        count = len(next(iter(rows.values()), []))
        columns = (rows.get(name, [None] * count) for name in ("instruction", "input", "output"))
        return {"messages": [self._conversation(*(text or "" for text in row)) for row in zip(*columns)]}

    def _conversation(self, instruction, given, output):
        question = f"{instruction}\n{given}" if given else instruction
        return [{"role": "user", "content": question}, {"role": "assistant", "content": output}]
