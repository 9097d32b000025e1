"""Make a failing plan small: leave out steps as long as it still fails in the same way."""

from __future__ import annotations

from collections.abc import Callable

from attrs import evolve

from .plan import Plan, Step


def shrunk(plan: Plan, fails: Callable[[Plan], bool], runs: int = 400) -> Plan:
    """Return a plan of which no step, and no half of its steps, can be left out.

    Args:
        plan: fails.
        fails: runs a plan, and returns whether it fails in the same way.
        runs: at most so many.

    Returns:
        A plan that fails, with some of the steps; recipients of messages are left out too.
    """
    left = [runs]

    def still_fails(candidate: Plan) -> bool:
        left[0] -= 1
        return left[0] >= 0 and fails(candidate)

    before = None
    while before != plan and left[0] > 0:
        before = plan
        plan = _with_fewer_steps(plan, still_fails)
        plan = _with_fewer_recipients(plan, still_fails)
        plan = _quick(plan, still_fails)
    return plan


def _with_fewer_steps(plan: Plan, fails: Callable[[Plan], bool]) -> Plan:
    size = max(1, len(plan.steps) // 2)
    while True:
        at = 0
        while at < len(plan.steps):
            candidate = evolve(plan, steps=plan.steps[:at] + plan.steps[at + size :])
            if fails(candidate):
                plan = candidate
            else:
                at += size
        if size == 1:
            return plan
        size //= 2


def _with_fewer_recipients(plan: Plan, fails: Callable[[Plan], bool]) -> Plan:
    for at, step in enumerate(plan.steps):
        recipients = step.arguments[3] if step.what in ("send", "submit") else ()
        if not isinstance(recipients, tuple):
            continue
        for each in recipients:
            rest = tuple(
                other
                for other in plan.steps[at].arguments[3]  # type: ignore[union-attr]
                if other != each
            )
            if rest and fails(candidate := _replaced(plan, at, rest)):
                plan = candidate
    return plan


def _replaced(plan: Plan, at: int, recipients: tuple[str, ...]) -> Plan:
    step: Step = plan.steps[at]
    step = evolve(step, arguments=(*step.arguments[:3], recipients, *step.arguments[4:]))
    return evolve(plan, steps=(*plan.steps[:at], step, *plan.steps[at + 1 :]))


def _quick(plan: Plan, fails: Callable[[Plan], bool]) -> Plan:
    """Let network, commits and disks take no time, where it fails all the same."""
    for at in range(3):
        speed = tuple(0.0 if number == at else each for number, each in enumerate(plan.speed))
        if plan.speed[at] and fails(candidate := evolve(plan, speed=speed)):
            plan = candidate
    return plan
