"""The base class of every Python plugin: all hooks, as documented methods that do nothing.

A plugin derives from Plugin and overrides what it wants; the host finds out which and only those are called, one
at a time, on the host's one thread.  Plugin has no constructor and no instance attributes, so a subclass need not
call ``super().__init__()``.
"""

from __future__ import annotations

from typing import Any, ClassVar, FrozenSet, Optional, Set, Tuple, Type, Union

from bulkhead.batch import Batch
from bulkhead.context import Context

_Names = Union[Set[str], FrozenSet[str]]


class Plugin:
    """Derive from it, override hooks, name the class in the run file (``use: file.py:Class``).

    Common to all hooks:

    * `ctx` holds the facts of the call (bulkhead.Context): the process (``rank``, ``device``, ``run_dir``, …), the
      place in the run (``epoch``, ``global_step``, ``metrics``, …) and what one may ask for (``ctx.control``,
      ``ctx.log``).  It is valid during the call.
    * Notify hooks (all but the three at the end) return nothing; they ask through ``ctx.control``, and every rank
      does what was asked at the same step.
    * An exception is counted, recorded with its traceback and otherwise ignored: training and the plugin go on.
      An exception in the constructor or in ``setup`` refuses the run.
    * If the process dies or hangs in a hook it is restarted, its state comes back and the call is made again with
      the same random seeds.
    * Hooks run on each rank (``scope: rank``) or, with ``scope: job``, once, as rank 0 sees them.
    """

    claims: ClassVar[_Names] = frozenset()
    """What this plugin must have for itself: of "train_batch", "validate_batch", "test_batch", "should_stop"."""
    steers: ClassVar[bool] = True
    """False: only watches.  Nothing waits for it, its Control is ignored, and calls may be dropped when it is slow."""
    transient: ClassVar[_Names] = frozenset()
    """Attributes that the default state_dict leaves out: caches, open files, locks."""
    stateless: ClassVar[bool] = False
    """True: attributes are constants after setup; nothing is snapshotted or replayed."""
    seeded: ClassVar[bool] = True
    """False: leave random, numpy and torch alone before each call (ctx.rng is seeded all the same)."""
    raises: ClassVar[Tuple[Type[BaseException], ...]] = ()
    """Exceptions that are meant to end the run.  This version records them like any other."""

    # ----- Start -----

    def setup(self, ctx: Context) -> None:
        """Once per incarnation, after the constructor and before any state is loaded.  An exception refuses the run."""

    # ----- The run -----

    def on_train_start(self, ctx: Context) -> None:
        """Before the first epoch of a run that starts fresh; not again after a resume.  The ranks wait."""

    def on_train_end(self, ctx: Context) -> None:
        """After the last epoch and before the final save.  The ranks wait."""

    def on_epoch_start(self, ctx: Context) -> None:
        """Before the first step of an epoch; ``ctx.global_step`` is the number of steps completed.  The ranks wait."""

    def on_epoch_end(self, ctx: Context) -> None:
        """After the last step of an epoch.  The ranks wait."""

    # ----- A step -----

    def on_step_start(self, ctx: Context) -> None:
        """Before the batches of step ``ctx.global_step`` (from 0) are used.

        Nobody waits; Control takes effect at the end of this step.
        """

    def on_step_end(self, ctx: Context) -> None:
        """After the optimizer step, with its ``ctx.metrics``, ``ctx.lr`` and ``ctx.grad_norm``.

        Nobody waits; Control takes effect at the end of the step after this one.
        """

    def should_stop(self, ctx: Context) -> Optional[bool]:
        """Polled once per step, directly after on_step_end; True is ``ctx.control.stop()``."""
        return None

    # ----- Validation -----

    def on_validate_start(self, ctx: Context) -> None:
        """Before a validation.  The ranks wait."""

    def on_validate_step_end(self, ctx: Context) -> None:
        """After each batch of a validation.  The ranks wait."""

    def on_validate_end(self, ctx: Context) -> None:
        """After a validation: ``ctx.metrics`` holds its results, ``ctx.best_metric`` the lowest loss so far.

        The ranks wait, and Control takes effect directly after this hook.
        """

    # ----- Checkpoints -----

    def on_save_start(self, ctx: Context) -> None:
        """Before a checkpoint is written.  The ranks wait."""

    def on_save_end(self, ctx: Context) -> None:
        """After a checkpoint is complete.  The ranks wait."""

    def on_load(self, ctx: Context) -> None:
        """After a checkpoint was loaded, and this plugin's state with it.  The ranks wait."""

    # ----- Data -----

    def transform_train_batch(self, batch: Batch, ctx: Context) -> Optional[Any]:
        """Each training micro-batch, `prefetch` steps before it is needed.

        Change it through ``batch.mutable("x")`` or ``batch["x"] = array``; return nothing, the batch, or a dict of
        arrays to assign.  After an exception the run file's ``on_poison`` says what becomes of the batch.  Names and
        types (and, once one batch was good, shapes) must stay.
        """
        return None

    # ----- State -----

    def state_dict(self) -> Any:
        """What must survive a crash or a resume.

        The default is every attribute that can be carried without pickle (bulkhead/state.py lists the types) and is
        not in ``transient``.  An own one may return any value made of those types; None means there is nothing to
        keep.
        """
        from bulkhead import state

        return state.attributes_of(self)

    def load_state_dict(self, state: Any) -> None:
        """Gets what state_dict gave; comes after ``setup``.  The default puts the attributes back."""
        from bulkhead import state as state_module

        state_module.restore_attributes(self, state)
