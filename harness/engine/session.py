"""The production path: a decoder and its executor, prepared conditions, and streams over them."""

from __future__ import annotations

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
from harness.engine.results import Finished, Submission


class Session:
    """Holds what streams share.

    Args:
        decoder: the model.
        executor: runs it, and is closed with the session; None is `EagerExecutor(decoder)`.
        null_embedding: `[1, 1, E]`, what the model was trained to take for "no condition"; None is the decoder's own
            `null_embedding`, where it has one.

    Raises:
        InvalidInput: a null embedding of another shape, or a decoder that cannot be called, such as an executor.
    """

    def __init__(
        self, decoder: Decoder, executor: Executor | None = None, *, null_embedding: Tensor | None = None
    ) -> None:
        """See the class."""
        if not callable(decoder):
            raise InvalidInput("decoder", checks.describe(decoder), "a decoder; an executor comes after it")
        own = getattr(decoder, "null_embedding", None) if null_embedding is None else null_embedding
        if own is not None:
            checks.tensor("null_embedding", own, (1, 1, "E"))
        self.decoder = decoder
        self.executor = executor or EagerExecutor(decoder)
        self.null_embedding: Tensor | None = own
        self._null: dict[tuple[int, torch.dtype, torch.device], Condition] = {}
        self._streams: list[Stream] = []
        self._closed = False

    def null_condition(self, condition: Condition) -> Condition:
        """The null embedding at every token of `condition`'s length, so that a guided batch is uniform.

        Asked again for the same length, dtype and device it returns the same record.

        Raises:
            InvalidInput: there is no null embedding, or it has another width than the condition.
        """
        states = condition.encoder_hidden_states
        if self.null_embedding is None:
            raise InvalidInput("null_embedding", "none", "one: the decoder has none and the session was given none")
        if self.null_embedding.shape[2] != states.shape[2]:
            expected = f"width {self.null_embedding.shape[2]}, as the null embedding has"
            raise InvalidInput("condition.encoder_hidden_states", checks.describe(states), expected)
        key = (condition.length, states.dtype, states.device)
        if key not in self._null:
            expanded = self.null_embedding.detach().to(states.device, states.dtype).expand_as(states)
            self._null[key] = Condition(encoder_hidden_states=expanded.contiguous())
        return self._null[key]

    def stream(
        self,
        conditions: Sequence[Condition],
        context_latents: Tensor,
        *,
        config: PipelineConfig | None = None,
        source: Tensor | None = None,
    ) -> Stream:
        """A stream of requests that share conditions, context and source.

        Args:
            conditions: the positive conditions.
            context_latents: `[1, T, 2*D]`.
            config: of the stream's pipeline.
            source: `[1, T, D]`, where a denoise below 1 will be asked for.

        Raises:
            PipelineClosed: after `close`.
        """
        if self._closed:
            raise PipelineClosed("the session is closed")
        stream = Stream(self, Request(conditions, context_latents, seed=0, source=source), config)
        self._streams.append(stream)
        return stream

    def close(self) -> None:
        """Close every stream, then the executor. Calling it twice is fine."""
        self._closed = True
        for stream in self._streams:
            stream.close()
        self._streams.clear()
        self.executor.close()

    def __enter__(self) -> Session:
        """The session itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()


class Stream:
    """A pipeline that is fed one request a tick. Made by `Session.stream`.

    Attributes:
        pipeline: takes the live controls, depth changes and questions.
        last_submission: what the last tick's request displaced, or None.
    """

    def __init__(self, session: Session, template: Request, config: PipelineConfig | None) -> None:
        """See `Session.stream`."""
        self.pipeline = StreamPipeline(session.executor, config)
        self.last_submission: Submission | None = None
        self._session = session
        self._template = template

    def tick(
        self,
        *,
        seed: int | None = None,
        denoise: float = 1.0,
        negative: Condition | None = None,
        guidance: Guidance | float | None = None,
    ) -> list[Finished]:
        """Submit a request and run one tick.

        The host reads no tensor where every tensor and `denoise` was given before; see `harness.engine.once`.

        Args:
            seed: of the request; None submits nothing.
            denoise: of the request.
            negative: its negative condition, where guided; None is the null condition.
            guidance: a `Guidance`, or a scale for full guidance, or None. A `Guidance` that brings its own negatives
                keeps them.

        Raises:
            InvalidInput: what `Request` and `StreamPipeline.submit` refuse; nothing was submitted and no tick ran.
        """
        self.last_submission = None
        if seed is not None:
            request = replace(self._template, seed=seed, denoise=denoise, guidance=self._guidance(guidance, negative))
            self.last_submission = self.pipeline.submit(request)
        return self.pipeline.tick()

    def drain(self) -> list[Finished]:
        """Finish what is queued and in flight."""
        return self.pipeline.drain()

    def close(self) -> None:
        """Close the pipeline."""
        self.pipeline.close()

    def _guidance(self, guidance: Guidance | float | None, negative: Condition | None) -> Guidance | None:
        if guidance is None:
            if negative is not None:
                raise InvalidInput("negative", "a condition without guidance", "a guidance that uses it")
            return None
        made = guidance if isinstance(guidance, Guidance) else Guidance(scale=guidance)
        if made.negatives and negative is not None:
            raise InvalidInput("negative", "a condition beside guidance.negatives", "one of the two")
        if made.negatives or not GuidanceMode(made.mode).needs_negatives:
            return made
        return replace(made, negatives=(negative or self._session.null_condition(self._template.conditions[0]),))
