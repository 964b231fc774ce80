"""Sessions: a decoder and its executor, the null condition, and the streams that share them."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from types import TracebackType

import torch
from torch import Tensor

from harness.engine import checks
from harness.engine.config import PipelineConfig
from harness.engine.decoders.base import Decoder
from harness.engine.errors import InvalidInput, PipelineClosed
from harness.engine.executors.base import Executor
from harness.engine.executors.eager import EagerExecutor
from harness.engine.guidance_modes import GuidanceMode
from harness.engine.pipeline import StreamPipeline
from harness.engine.request import Condition, Guidance, Request
from harness.engine.results import Outcomes, Submission
from harness.engine.transfer import note, to_device


class Session:
    """A decoder and an executor that several streams share. For any thread.

    Args:
        decoder: the model.
        executor: runs the decoder and is closed with the session; None is `EagerExecutor(decoder)`.
        null_embedding: `[1, 1, E]`, the encoder state that the model was trained with for "no condition"; None takes
            the decoder's attribute `null_embedding`, where the decoder has one.

    Raises:
        InvalidInput: a null embedding of another shape, or a decoder that cannot be called, such as an executor.
    """

    def __init__(
        self, decoder: Decoder, executor: Executor | None = None, *, null_embedding: Tensor | None = None
    ) -> None:
        if not callable(decoder):
            raise InvalidInput("decoder", checks.describe(decoder), "a decoder; the executor is the second argument")
        own = getattr(decoder, "null_embedding", None) if null_embedding is None else null_embedding
        if own is not None:
            checks.tensor("null_embedding", own, (1, 1, "E"))
        self.decoder = decoder
        self.executor = executor or EagerExecutor(decoder)
        self.null_embedding: Tensor | None = own
        self._null: dict[tuple[int, torch.dtype, torch.device], Condition] = {}
        # Those that are open, by identity.
        self._streams: dict[int, Stream] = {}
        self._closed = False
        self._lock = threading.Lock()

    def null_condition(self, condition: Condition) -> Condition:
        """Make a condition of the null embedding, with as many tokens as `condition`.

        Equal lengths keep the rows of a guided batch uniform. Calls for the same length, dtype and device return the
        same record.

        Raises:
            InvalidInput: there is no null embedding, or the null embedding has another width than the condition.
        """
        states = condition.encoder_hidden_states
        if self.null_embedding is None:
            raise InvalidInput("null_embedding", "none", "a null embedding of the decoder, or given to the session")
        if self.null_embedding.shape[2] != states.shape[2]:
            expected = f"width {self.null_embedding.shape[2]}, as the null embedding has"
            raise InvalidInput("condition.encoder_hidden_states", checks.describe(states), expected)
        key = (condition.length, states.dtype, states.device)
        with self._lock:
            known = self._null.get(key)
            if known is not None:
                return known
            null = to_device(self.null_embedding.detach(), states.device).to(states.dtype)
            made = self._null[key] = Condition(encoder_hidden_states=null.expand_as(states).contiguous())
            note(states.device)
            return made

    def stream(
        self,
        conditions: Sequence[Condition],
        context_latents: Tensor,
        *,
        config: PipelineConfig | None = None,
        source: Tensor | None = None,
    ) -> Stream:
        """Open a stream of requests that share conditions, context and source.

        Args:
            conditions: the positive conditions, at least one.
            context_latents: `[1, T, 2*D]`; see `Request`.
            config: configuration of the stream's pipeline; None is `PipelineConfig()`.
            source: `[1, T, D]`, needed for a denoise below 1.

        Raises:
            PipelineClosed: after `close`.
            InvalidInput: an argument that `Request` refuses.
        """
        if self._closed:
            raise PipelineClosed("the session is closed")
        template = Request(conditions, context_latents, seed=0, source=source)
        stream, first = Stream(self, template, config), template.conditions[0]
        if self.null_embedding is not None and self.null_embedding.shape[2] == first.encoder_hidden_states.shape[2]:
            # Made here, so that a tick that is refused leaves the session as it was.
            self.null_condition(first)
        with self._lock:
            if not self._closed:
                self._streams[id(stream)] = stream
                return stream
        raise PipelineClosed("the session is closed")

    def let_go(self, stream: Stream) -> None:
        """Forget a stream that is closed. A stream calls this itself; a second call is allowed."""
        with self._lock:
            self._streams.pop(id(stream), None)

    def close(self) -> None:
        """Close every stream, then the executor. A second call is allowed."""
        with self._lock:
            self._closed = True
            streams, self._streams = list(self._streams.values()), {}
        for stream in streams:
            stream.close()
        self.executor.close()

    def __enter__(self) -> Session:
        """Return the session."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the session."""
        self.close()


class Stream:
    """A pipeline that takes at most one request a tick. Made by `Session.stream`.

    Attributes:
        pipeline: the stream's pipeline, for live controls, changes of depth and statistics.
        last_submission: result of the last tick's submission, or None where the tick submitted nothing. A tick that
            is refused leaves it as it was.
    """

    def __init__(self, session: Session, template: Request, config: PipelineConfig | None) -> None:
        self.pipeline = StreamPipeline(session.executor, config)
        self.last_submission: Submission | None = None
        # What a tick submits, until it has returned: its arguments, the request, and its name once it is submitted.
        self._pending: tuple[tuple[object, ...], Request, str | int | None] | None = None
        self._session = session
        self._template = template

    def tick(
        self,
        *,
        seed: int | None = None,
        denoise: float = 1.0,
        negative: Condition | None = None,
        guidance: Guidance | float | None = None,
    ) -> Outcomes:
        """Submit a request and run one tick; return what left the ring, in ring order; see `StreamPipeline.tick`.

        On the CPU the host reads no tensor if every tensor and the value of `denoise` were given before; see
        `harness.engine.once`. For a GPU it waits as `StreamPipeline.tick` does, whatever is new.

        Args:
            seed: seed of the request, 0 to 2**64 - 1; None submits no request.
            denoise: denoising strength of the request, at least 0.
            negative: negative condition of a guided request; None is the null condition. A mode of guidance that takes
                no negative refuses one.
            guidance: a `Guidance`, or a scale for full guidance, or None. A `Guidance` with negatives keeps its own.

        Raises:
            InvalidInput: `Request` or `StreamPipeline.submit` refused the request; no tick ran and nothing changed.
            Exception: see `StreamPipeline.tick`. The request is submitted; a call with the same arguments runs the tick
                again and submits nothing.
        """
        if seed is None:
            return self._ticked(None)
        asked = (seed, denoise, negative, guidance)
        if not self._waits(asked):
            request = replace(self._template, seed=seed, denoise=denoise, guidance=self._guidance(guidance, negative))
            before, self._pending = self._pending, (asked, request, None)
            try:
                self.last_submission = made = self.pipeline.submit(request)
                self._pending = (asked, request, made.id)
            except InvalidInput:
                self._pending = before
                raise
        return self._ticked(self.last_submission)

    def drain(self) -> Outcomes:
        """Tick until nothing is queued or in flight; return everything that left the ring, in order."""
        return self.pipeline.drain()

    def close(self) -> None:
        """Close the pipeline, and leave the session. A second call is allowed."""
        self.pipeline.close()
        self._session.let_go(self)

    def _ticked(self, submission: Submission | None) -> Outcomes:
        pending, before, made = self._pending, self.last_submission, None
        try:
            made = self.pipeline.tick()
            self.last_submission, self._pending = submission, None
            return made
        except BaseException:
            self.last_submission, self._pending = before, pending
            if made is not None:
                self.pipeline.keep(made)
            raise

    def _waits(self, asked: tuple[object, ...]) -> bool:
        """Say whether the last tick did not return, after it had submitted just this, which was not handed out yet."""
        if self._pending is None:
            return False
        given, request, known = self._pending
        if not all(a is b or (isinstance(a, int | float) and a == b) for a, b in zip(asked, given, strict=True)):
            return False
        name, last = self.pipeline.name_of(request), self.last_submission
        if name is None:
            return known is not None and self.pipeline.keeps(known)
        if last is None or last.id != name:
            # The submission was interrupted; the next tick names what it displaced.
            self.last_submission = Submission(name, ())
        return True

    def _guidance(self, guidance: Guidance | float | None, negative: Condition | None) -> Guidance | None:
        if guidance is None:
            if negative is not None:
                raise InvalidInput("negative", "a condition without guidance", "a guidance beside the condition")
            return None
        made = guidance if isinstance(guidance, Guidance) else Guidance(scale=guidance)
        if made.negatives and negative is not None:
            raise InvalidInput("negative", "a condition beside guidance.negatives", "either of the two")
        needs = GuidanceMode(made.mode).needs_negatives
        if negative is not None and not needs:
            raise InvalidInput("negative", f"a condition beside guidance of mode {made.mode}", "none: it uses none")
        if made.negatives or not needs:
            return made
        return replace(made, negatives=(negative or self._session.null_condition(self._template.conditions[0]),))
