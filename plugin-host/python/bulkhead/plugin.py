"""The base class of every Python plugin: all hooks, as documented methods that do nothing.

A plugin derives from Plugin and overrides what it wants; the host finds out which and only those are called, one
at a time, on the host's one thread.  Plugin has no constructor and no instance attributes, so a subclass need not
call ``super().__init__()``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Dict, FrozenSet, List, Optional, Set, Tuple, Type, Union

from bulkhead.batch import Batch
from bulkhead.context import Context

if TYPE_CHECKING:
    import numpy as np

    from bulkhead.samples import Sample

_Names = Union[Set[str], FrozenSet[str]]


class Plugin:
    """Derive from it, override hooks, name the class in the run file (``use: file.py:Class``).

    Common to all hooks:

    * `ctx` holds the facts of the call (bulkhead.Context): the process (``rank``, ``device``, ``run_dir``, …), the
      place in the run (``epoch``, ``global_step``, ``metrics``, …) and what one may ask for (``ctx.control``,
      ``ctx.set``, ``ctx.log``, ``ctx.all_gather``, ``ctx.weights``).  It is valid during the call.
    * Notify hooks (all but transforms and state) return nothing; they ask through ``ctx.control`` and ``ctx.set``,
      and every rank does what was asked at the same step.
    * Where the ranks wait for a hook, Control takes effect directly after it, and ``ctx.load_weights`` is possible.
      Where they do not, Control takes effect at the end of a later step, which each hook names.
    * An exception is counted, recorded with its traceback and otherwise ignored: training and the plugin go on.  One
      of the class's ``raises`` ends the run.  In the constructor, in ``configure`` or in ``setup`` any refuses it.
    * If the process dies or hangs in a hook it is restarted, its state comes back and the call is made again with
      the same random seeds.
    * Hooks run on each rank (``scope: rank``); once a node and rank in one process (``scope: node``); once, as rank 0
      sees them (``scope: job``; its metrics are those reduced over the ranks).
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
    """Exceptions that are meant to end the run, with their subclasses: on all ranks at the same step, status failed."""

    # ----- Start -----

    def configure(self, config: dict, ctx: Context) -> Optional[dict]:
        """Once an incarnation, before anything is built: the run as configured so far, and what to change of it.

        `config` is the map that run.yaml holds, with the changes of the plugins before this one; return changes as a
        dict of dotted keys (``{"optimizer.lr": 1e-4}``) or nested dicts, or nothing.  Used is what rank 0 returned;
        every process of the plugin is asked, so attributes set here are the same everywhere.  A change to `plugins` or
        `name`, an unknown key, a wrong type or an exception refuses the run.  `ctx` has the facts of the process; its
        log goes to the process's own log file, and there is nobody to gather from.
        """
        return None

    def setup(self, ctx: Context) -> None:
        """Once per incarnation, after the constructor and before any state is loaded.  An exception refuses the run."""

    # ----- The run -----

    def on_train_start(self, ctx: Context) -> None:
        """Before the first epoch of a run that starts fresh; not again after a resume.  The ranks wait; no metrics."""

    def on_train_end(self, ctx: Context) -> None:
        """After the last epoch and before the final save: metrics of the last step.  The ranks wait.

        Not after an interrupt, which is followed by a resume.
        """

    def on_epoch_start(self, ctx: Context) -> None:
        """Before the first step of an epoch; ``ctx.global_step`` is the number of steps completed.  The ranks wait.

        Before the epoch's first batch is sent, so ``ctx.set("grad_accum", n)`` holds from its first step on.
        """

    def on_epoch_end(self, ctx: Context) -> None:
        """After the last step of an epoch, its validation and its save: metrics of the last step.  The ranks wait."""

    def on_exception(self, ctx: Context) -> None:
        """When the run fails; ``ctx.exception`` says why ("plugin: Type: message", or the rank's own error).

        On all ranks for an exception of some plugin's ``raises``; on the failing rank alone where training itself
        failed, so there is no all_gather.  Nothing is saved afterwards.  The rank waits.
        """

    # ----- A step -----

    def on_step_start(self, ctx: Context) -> None:
        """Before the batches of step ``ctx.global_step`` (from 0) are used: metrics of the step before.

        Nobody waits; Control takes effect at the end of this step.
        """

    def on_backward_end(self, ctx: Context) -> None:
        """After the backward pass of each micro-batch ``ctx.micro_batch``, with its loss and accuracy.

        Nobody waits; Control takes effect at the end of the step after this one.
        """

    def on_substep_end(self, ctx: Context) -> None:
        """After each micro-batch of a step but its last, directly after on_backward_end and with the same ctx.

        Nobody waits; Control takes effect at the end of the step after this one.
        """

    def on_optimizer_step_start(self, ctx: Context) -> None:
        """Before the optimizer step, after clipping: this step's ``metrics``, ``lr`` and ``grad_norm``.

        Nobody waits; Control takes effect at the end of the step after this one.
        """

    def on_optimizer_step_end(self, ctx: Context) -> None:
        """After the optimizer step, with the same ctx.  ``ctx.weights()`` are those that it left.

        Nobody waits; Control takes effect at the end of the step after this one.
        """

    def on_step_end(self, ctx: Context) -> None:
        """At the end of a step, with its ``ctx.metrics``, ``ctx.lr`` and ``ctx.grad_norm``; before its validation.

        Nobody waits; Control takes effect at the end of the step after this one.
        """

    def should_stop(self, ctx: Context) -> Optional[bool]:
        """Polled once per step on every plugin and rank, directly after on_step_end and with the same ctx.

        True is ``ctx.control.stop()``, with the plugin's name as the reason unless it gave one.
        """
        return None

    def on_log(self, ctx: Context) -> None:
        """After a step whose line goes to metrics.jsonl, with that step's ctx.

        Nobody waits; Control takes effect at the end of the step after this one.
        """

    # ----- Validation -----

    def on_validate_start(self, ctx: Context) -> None:
        """Before a validation: metrics of the last step.  The ranks wait."""

    def on_validate_step_end(self, ctx: Context) -> None:
        """After batch ``ctx.micro_batch`` of a validation, with its loss and accuracy.  The ranks wait."""

    def on_validate_end(self, ctx: Context) -> None:
        """After a validation: ``ctx.metrics`` holds its results, ``ctx.best_metric`` the lowest loss so far.

        The ranks wait, and Control takes effect directly after this hook.
        """

    # ----- Test -----

    def on_test_start(self, ctx: Context) -> None:
        """Before the test at the end of training, after the final save: metrics of the last step.  The ranks wait."""

    def on_test_step_end(self, ctx: Context) -> None:
        """After batch ``ctx.micro_batch`` of the test, with its loss and accuracy.  The ranks wait."""

    def on_test_end(self, ctx: Context) -> None:
        """After the test: ``ctx.metrics`` holds its results.  The ranks wait."""

    # ----- Checkpoints -----

    def on_save_start(self, ctx: Context) -> None:
        """Before a checkpoint is written: metrics of the last step.  The ranks wait."""

    def on_save_end(self, ctx: Context) -> None:
        """After a checkpoint is complete: metrics of the last step.  The ranks wait."""

    def on_load(self, ctx: Context) -> None:
        """After a checkpoint was loaded, and this plugin's state with it.  The ranks wait."""

    # ----- The data set: rows of a JSON lines file (data.type: rows) -----

    def preprocess(self, rows: Dict[str, list], ctx: Context) -> Optional[Dict[str, list]]:
        """1,000 rows of the data set at a time, as columns: name → list of values, None where a row has no such key.

        Once, on rank 0, after ``setup`` and before ``on_train_start``: all preprocess in list order over the whole
        data set, then all ``keep``, then ``encode``; a resume does not make the data set again.  Change `rows` in
        place or return other columns of equal lengths, as long as there shall be rows.  ``ctx.micro_batch`` is the
        chunk's number; all seeds depend on it alone.  ``ctx.metrics`` are empty, Control and settings do nothing.  A
        call whose process dies is made again; an exception, or a second death in the same call, refuses the run.
        """
        return None

    def keep(self, row: dict, ctx: Context) -> bool:
        """Whether a row stays in the data set, after all preprocess: True or False.

        ``ctx.sample`` is the row's number among those that this plugin is asked about; all seeds depend on it alone.
        The rest as in preprocess.
        """
        return True

    def encode(self, conversation: dict, ctx: Context) -> Dict[str, Any]:
        """A row as tokens, after all keep: {"input_ids": [...], "labels": [...]}, whole numbers, as many of each.

        A label is the token itself where it is to be learned, −100 where not; without labels all are.  The model's
        shift by one is not the plugin's business.  One plugin of a run may have it; without one the rank encodes
        `text` and `messages` itself.  ctx and failures as in keep.
        """
        return {"input_ids": []}

    def collate(self, samples: List[Dict[str, np.ndarray]], ctx: Context) -> Dict[str, Any]:
        """A micro-batch made of token samples, instead of padding them on the right to the longest.

        A sample is {"input_ids", "labels"}, int64 [T], read-only: ``labels[i]`` is what follows ``input_ids[i]``, −100
        where that is not learned.  Return input_ids and labels, int64 [N,T], T at most the model's context.  In
        training, validations and the test, `prefetch` ahead; ctx and failures as in transform_train_batch, where
        ``on_poison: identity`` takes the padded samples.  One plugin of a run may have it.
        """
        return {}

    # ----- Samples of a captions data set -----

    def transform_image(self, image: np.ndarray, ctx: Context) -> Any:
        """Each training image, uint8 [H,W,3], before it is normalised; ``ctx.sample`` is its number.

        ``ctx.path`` is its file.  `image` is read-only: return another array of the same shape, or a PIL image
        (``Image.fromarray(image)`` makes one), or nothing to keep it.  All seeds are those of (run, plugin, hook,
        epoch, sample): whichever rank or incarnation handles the sample, it comes out the same.  Plugins are chained
        in list order, `prefetch` steps ahead; an exception fails the whole micro-batch, and the run file's
        ``on_poison`` says what becomes of it.  ``ctx.metrics`` are those of the last step before the batch was sent.
        """
        return None

    def transform_caption(self, caption: str, ctx: Context) -> Optional[str]:
        """Each training caption, before it is tokenised; ctx as in transform_image.

        Return the new text (at most 64 KiB of UTF-8), or nothing to keep it.  Seeds, order and failures as there.
        """
        return None

    def transform_sample(self, sample: Sample, ctx: Context) -> Any:
        """Each training sample, after all transform_image and transform_caption; ctx as in transform_image.

        Assign ``sample.image`` and ``sample.caption``; ``sample.path`` and ``sample.index`` are facts.  Return
        nothing, the sample, or a dict with image, caption or both.  Seeds, order and failures as there.
        """
        return None

    # ----- Batches -----

    def transform_train_batch(self, batch: Batch, ctx: Context) -> Optional[Any]:
        """Training micro-batch ``ctx.micro_batch`` of step ``ctx.global_step``, `prefetch` steps before it is needed.

        Change it through ``batch.mutable("x")`` or ``batch["x"] = array``; return nothing, the batch, or a dict of
        arrays to assign.  After an exception the run file's ``on_poison`` says what becomes of the batch.  Names and
        types (and, once one batch was good, shapes) must stay.  ``ctx.metrics``, ``lr`` and ``grad_norm`` are those of
        the last step before the batch was sent.
        """
        return None

    def transform_validate_batch(self, batch: Batch, ctx: Context) -> Optional[Any]:
        """Batch ``ctx.micro_batch`` of a validation, `prefetch` batches ahead: metrics of the last step.

        Answers and failures as in transform_train_batch.
        """
        return None

    def transform_test_batch(self, batch: Batch, ctx: Context) -> Optional[Any]:
        """Batch ``ctx.micro_batch`` of the test, `prefetch` batches ahead: metrics of the last step.

        Answers and failures as in transform_train_batch.
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
