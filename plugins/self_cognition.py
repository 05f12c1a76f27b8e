"""Makes conversations of query and response, with a name and an author put in: a model learns who it is.

    data: {type: rows, path: self_cognition.jsonl}
    plugins:
      - use: self_cognition
        with: {name: bulkhead, author: the founders}

{{NAME}} and {{AUTHOR}} in both columns are replaced.  (Twinkle's SelfCognitionProcessor.)
"""

from bulkhead import Plugin


class SelfCognition(Plugin):
    stateless = True

    def __init__(self, name: str, author: str):
        """name: what the model calls itself.

        author: who it says made it.
        """
        self.name, self.author = name, author

    def preprocess(self, rows, ctx):
        pairs = zip(rows.get("query", []), rows.get("response", []))
        return {"messages": [self._conversation(query or "", response or "") for query, response in pairs]}

    def _conversation(self, query, response):
        return [
            {"role": "user", "content": self._filled(query)},
            {"role": "assistant", "content": self._filled(response)},
        ]

    def _filled(self, text):
        return text.replace("{{NAME}}", self.name).replace("{{AUTHOR}}", self.author)
