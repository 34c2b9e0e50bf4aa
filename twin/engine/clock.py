"""The clock: how long the step takes by the calibration's law, and the figures that are summed over steps."""

from __future__ import annotations

from twin.compiled import inlined
from twin.engine.record import trace_step
from twin.engine.state import ITL_BINS, ITL_BINS_PER_MS, EngineState


@inlined
def run_step(engine: EngineState) -> None:
    """The step starts when it is scheduled and the one before it has ended; it takes the law's time and its loads'.

    Async: the next one is scheduled when the one before this has been processed; two are in flight.
    """
    limits, clock, scheduler, batch = engine.limits, engine.clock[0], engine.scheduler[0], engine.batch[0]
    duration_s = limits.time_scale * (step_time_ms(engine) / 1000.0 + batch.load_s)
    start_s = max(clock.now_s, clock.gpu_end_s)
    measure_step(engine, start_s, duration_s)
    trace_step(engine, start_s, duration_s)
    if not limits.async_scheduling:
        clock.now_s = start_s + duration_s
    elif scheduler.in_flight == 1:
        clock.now_s = max(clock.now_s, clock.gpu_end_s)
    scheduler.in_flight = 1 if limits.async_scheduling else 0
    clock.gpu_end_s = start_s + duration_s


@inlined
def wait_for_work(engine: EngineState) -> bool:
    """Nothing could be scheduled: wait for the step in flight, else for the next request; False = none will come."""
    clock, scheduler = engine.clock[0], engine.scheduler[0]
    scheduler.step -= 1
    if scheduler.in_flight == 1:
        scheduler.in_flight = 0
        clock.now_s = max(clock.now_s, clock.gpu_end_s)
    elif scheduler.running == 0 and scheduler.waiting == 0:
        if scheduler.upcoming >= scheduler.known:
            return False
        clock.now_s = max(clock.now_s, engine.sent.arrival_s[scheduler.upcoming])
    return True


@inlined
def step_time_ms(engine: EngineState) -> float:
    """`twin.server.laws.StepTimeLaw` for this batch; its terms, without coefficients, are added to `features`."""
    limits, scheduler, batch = engine.limits, engine.scheduler[0], engine.batch[0]
    law, features = engine.law[0], engine.figures.features[0]
    decodes, prompt, adapters = float(scheduler.decodes), float(batch.prompt_tokens), float(scheduler.active)
    tokens, kv = decodes + prompt, scheduler.kv_tokens / 1000.0
    skipped, queue = batch.skipped / 1000.0, decodes * scheduler.waiting / 1e6
    skipped_seq = decodes * batch.skipped / 1e6
    past_graph = tokens > law.graph_tokens
    ms: float = (
        law.base + law.seq * decodes + law.prompt * prompt + law.kv * kv + law.skipped * skipped + law.queue * queue
        + law.skipped_seq * skipped_seq
    )  # fmt: skip
    features.base += 1.0
    features.seq += decodes
    features.prompt += prompt
    features.kv += kv
    features.skipped += skipped
    features.queue += queue
    features.skipped_seq += skipped_seq
    if past_graph:
        over = tokens - law.graph_tokens
        ms += law.cliff + law.past_graph * over
        features.cliff += 1.0
        features.past_graph += over
    if adapters > 0:
        rank16, slots = limits.max_lora_rank / 16.0, limits.max_loras
        ms += law.lora + adapters * (law.adapter + law.adapter_rank * rank16 + law.adapter_token * tokens / 1000.0)
        ms += slots * (law.slot + law.slot_square * slots / 1000.0 + law.slot_token * tokens / 1000.0)
        ms += law.lora_rank * rank16 + law.lora_token * tokens
        features.lora += 1.0
        features.adapter += adapters
        features.adapter_rank += adapters * rank16
        features.slot += slots
        features.slot_square += slots * slots / 1000.0
        features.lora_rank += rank16
        features.slot_token += slots * tokens / 1000.0
        features.lora_token += tokens
        features.adapter_token += adapters * tokens / 1000.0
        if tokens < 128.0:
            ms += law.adapter_small * adapters
            features.adapter_small += adapters
        if past_graph:
            ms += law.adapter_large * adapters
            features.adapter_large += adapters
    elif tokens > 256.0:
        ms += law.plain_large
        features.plain_large += 1.0
    return ms


@inlined
def measure_step(engine: EngineState, start_s: float, duration_s: float) -> None:
    """Adds the step to the series, integrals and histograms."""
    limits, scheduler, batch, figures = engine.limits, engine.scheduler[0], engine.batch[0], engine.figures
    bins = len(figures.running_bins)
    where = min(int(start_s / limits.horizon_s * bins), bins - 1)
    figures.running_bins[where] += batch.running * duration_s
    figures.waiting_bins[where] += scheduler.waiting * duration_s
    figures.totals[0].kv_block_s += (limits.total_blocks - batch.free_blocks) * duration_s
    figures.totals[0].busy_s += duration_s
    if scheduler.waiting > 0:
        figures.blocked_s[batch.reason] += duration_s
    where = min(int(duration_s * 1000.0 * ITL_BINS_PER_MS), ITL_BINS - 1)
    figures.itl_histogram[where] += scheduler.decodes
