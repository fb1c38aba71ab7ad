"""A request for more or less, carried out: considered, brought into force at once, remembered; or refused."""

from __future__ import annotations

import logging

from morphnic.errors import AllocationRefused
from offload_manager import adjust
from offload_manager.adjust import Adjustment, Refusal
from offload_manager.api import ResourceAnswer, ResourceRequest
from offload_manager.loop import ControlLoop

log = logging.getLogger(__name__)

#: The device's refusals that have a code of their own in an answer.
_REASONS = {"busy draining": "draining"}


def handle(loop: ControlLoop, request: ResourceRequest) -> ResourceAnswer:
    """Answer one request. A refusal changes nothing, neither on the device nor in the store."""
    tenant, limits = request.tenant, loop.limits
    if tenant >= limits.tenants:
        return _answer(request, 0.0, Refusal("unknown tenant", f"the device has tenants 0 to {limits.tenants - 1}"))
    before = adjust.amount_of(loop.profiles[tenant], request.resource, limits)
    current = loop.adjustments.get(tenant, Adjustment())
    considered = adjust.consider(request, loop.profiles, loop.source.profiles, limits, current)
    if isinstance(considered, Refusal):
        log.info("tenant %d: %s %s refused: %s", tenant, request.direction, request.resource, considered.detail)
        return _answer(request, before, considered)
    return _carry_out(loop, request, before, {**loop.adjustments, tenant: considered})


def _carry_out(loop: ControlLoop, request: ResourceRequest, before: float,
               adjustments: dict[int, Adjustment]) -> ResourceAnswer:
    """Change the profiles, then the table if it does not meet them already; undo both on a refusal."""
    earlier = loop.adjustments
    profiles = adjust.apply(loop.source.profiles, adjustments)
    after = adjust.amount_of(profiles[request.tenant], request.resource, loop.limits)
    if profiles == loop.profiles:
        return ResourceAnswer(granted=True, reason="unchanged", detail="too little to make a difference",
                              tenant=request.tenant, resource=request.resource, before=before, after=before)
    loop.settle_early("confirmed early for a request")
    table = adjust.refit(loop.active, profiles, loop.limits)
    decision = None
    loop.adopt_adjustments(adjustments)
    try:
        if not table.same_table(loop.active):
            note = f": {request.note}" if request.note else ""
            decision = loop.change_now(
                table, source="request",
                reason=f"tenant {request.tenant} asked for {request.direction} {request.resource} "
                       f"({before:g} to {after:g}){note}")
    except AllocationRefused as refusal:
        if refusal.reason == "stale token":
            raise  # the device is another manager's: nothing is written to it, not even what was before
        loop.adopt_adjustments(earlier)
        reason = _REASONS.get(refusal.reason, "device refused")
        return _answer(request, before, Refusal(reason, str(refusal)))
    loop.store.put_setting("adjustments", adjust.dump(adjustments))
    return ResourceAnswer(
        granted=True, reason="granted", detail=f"in force in epoch {loop.active.epoch}", tenant=request.tenant,
        resource=request.resource, before=before, after=after, decision=decision.id if decision else None)


def _answer(request: ResourceRequest, before: float, refusal: Refusal) -> ResourceAnswer:
    return ResourceAnswer.model_validate({
        "granted": False, "reason": refusal.reason, "detail": refusal.detail, "tenant": request.tenant,
        "resource": request.resource, "before": before, "after": before, "alternative": refusal.alternative})
