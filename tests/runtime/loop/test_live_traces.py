"""OpenTelemetry spans of a live run: a task at its device, and its tail at the edge."""

from __future__ import annotations

import queue
import threading
from typing import Any

from opentelemetry.trace import StatusCode

from splitinfer.policies import named_policy
from splitinfer.runtime.loop import LiveRecord, LoopSettings, run_device, run_edge
from splitinfer.runtime.loop.services import ServiceLoader
from tests.runtime.test_tracing import Recorder


def test_a_live_run_has_a_span_for_every_task_and_the_edge_continues_it(tiny: Any, tiny_cards: Any) -> None:
    world, device, edge = tiny.replace(num_devices=1), Recorder(), Recorder()
    loader, listens = ServiceLoader(tiny_cards), queue.SimpleQueue[str]()
    record = LiveRecord()
    settings = LoopSettings(slots=60, time_scale=0.2, patience_s=60.0)
    policy, models = named_policy("fixed:1,1", world), loader.models(world)
    more = {"on_listen": listens.put, "observer": record.add, "tracing": edge.tracing}
    runs = threading.Thread(target=run_edge, args=(world, policy, models, settings), kwargs=more)
    runs.start()
    services = loader.services(world, 0)
    farewell = run_device(listens.get(timeout=60), world, 0, services, tracing=device.tracing)
    runs.join()
    tasks = device.spans("task")
    answered = [task for task in tasks if task.status.status_code is not StatusCode.ERROR]
    assert len(answered) == farewell.checked > 0
    assert len(tasks) == farewell.checked + farewell.unanswered
    served = {span.parent.span_id: span for span in edge.spans("serve") if span.parent is not None}
    for task in answered:
        assert task.attributes is not None
        assert task.attributes["splitinfer.ran_at"] == "edge"
        assert served[task.context.span_id].context.trace_id == task.context.trace_id
        assert set(device.stages(task)) == {"head"}
