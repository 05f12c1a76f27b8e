"""Makes conversations of GSM8K's questions and answers, or of any data set of such columns.

    data: {type: rows, path: train.jsonl}
    plugins:
      - use: gsm8k_rows
        with: {calculator: false}

Each row gets `messages`, a user's question and the assistant's answer, which is what the model learns.  Rows without
both are left out.
"""

import re

from bulkhead import Plugin

_NOTES = re.compile(r"<<[^<>]*>>")


class Gsm8kRows(Plugin):
    stateless = True

    def __init__(self, question: str = "question", answer: str = "answer", calculator: bool = True):
        """question, answer: names of the columns.

        calculator: keep the notes such as <<48/2=24>> in the answers.
        """
        self.question, self.answer, self.calculator = question, answer, calculator

    def preprocess(self, rows, ctx):
        questions, answers = rows.get(self.question, []), rows.get(self.answer, [])
        pairs = [pair for pair in zip(questions, answers) if all(isinstance(text, str) and text for text in pair)]
        return {"messages": [self._conversation(*pair) for pair in pairs]}

    def _conversation(self, question, answer):
        if not self.calculator:
            answer = _NOTES.sub("", answer)
        return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
