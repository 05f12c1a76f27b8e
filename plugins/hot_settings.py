"""Changes settings of the running training from a small file that is read again at each epoch's start.

    plugins:
      - use: hot_settings
        with: {file: settings.yaml}

RUN_DIR/settings.yaml (YAML, or JSON in a .json file), any of:

    grad_accum: 4          # micro-batches per rank and optimizer step
    lr: 1e-4               # until it is changed again; null gives it back to the schedule
    log_every: 20          # steps
    validate_every: 500    # steps
    save_every: 1000       # steps

The file may come and go.  What is in it and has changed since it was read last is set; what is wrong with it is said in
the log and leaves the run as it is.  (EveryDream2's load_settings_every_epoch.)
"""

import json
import os

from bulkhead import Plugin

NAMES = ("grad_accum", "log_every", "lr", "save_every", "validate_every")


def read(path: str) -> dict:
    """The settings in a file; empty when there is none.  ValueError, one sentence, for what is no map of settings."""
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    found = _parse(path, text)
    if found is None:  # an empty file
        return {}
    if not isinstance(found, dict):
        raise ValueError(f"{path} must hold a map of settings, not {type(found).__name__}")
    return {name: _number(path, name, value) for name, value in found.items()}


def _number(path, name, value):
    if name not in NAMES:
        raise ValueError(f'{path}: there is no setting "{name}"; there are {", ".join(NAMES)}')
    if value is None and name == "lr":
        return None
    try:
        # YAML 1.1 takes 1e-4, without a dot, for a text.
        number = float(value) if isinstance(value, str) else value
        if isinstance(number, (int, float)) and not isinstance(number, bool):
            return number
    except ValueError:
        pass
    raise ValueError(f"{path}: {name} must be a number, not {value!r}")


def _parse(path, text):
    if path.endswith(".json"):
        try:
            return json.loads(text) if text.strip() else None
        except ValueError as error:
            raise ValueError(f"{path} is no JSON: {error}") from None
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is no YAML: {' '.join(str(error).split())}") from None


class HotSettings(Plugin):
    def __init__(self, file: str = "settings.yaml"):
        """file: relative to the run's directory, or absolute; rank 0 reads it."""
        if not file:
            raise ValueError("file must be a path, not empty")
        self.file = file
        self.applied = {}  # name → value as last set

    def setup(self, ctx):
        if ctx.is_main:
            read(os.path.join(ctx.run_dir, self.file))  # a bad file is refused at start

    def on_epoch_start(self, ctx):
        # In a replay the file may already say something else, which was not set then: the next epoch sets it.
        if not ctx.is_main or ctx.replaying:
            return
        try:
            found = read(os.path.join(ctx.run_dir, self.file))
        except ValueError as error:
            ctx.log(f"hot_settings: {error}")
            return
        for name, value in found.items():
            if name not in self.applied or self.applied[name] != value:
                self._set(name, value, ctx)

    def _set(self, name, value, ctx):
        try:
            ctx.set(name, value)
        except (TypeError, ValueError) as error:
            ctx.log(f"hot_settings: {error}")
            return
        self.applied[name] = value
        ctx.log(f"hot_settings: {name} is {value} from epoch {ctx.epoch} on")
