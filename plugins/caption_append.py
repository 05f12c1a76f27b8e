"""Adds a text to every caption, in front or behind.

    plugins:
      - use: caption_append
        with: {text: ", a photo by ohwx"}

Plugins are chained in list order: "a", then "b" make "xab" of "x".
"""

from bulkhead import Plugin


class CaptionAppend(Plugin):
    stateless = True

    def __init__(self, text: str, front: bool = False):
        """text: added as it is, its spaces too.  front: before the caption instead of behind it."""
        self.text, self.front = text, front

    def transform_caption(self, caption, ctx):
        return self.text + caption if self.front else caption + self.text
