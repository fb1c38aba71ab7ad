"""Ask the manager for more or less of one resource for a tenant, and print what it answered.

    host-agent request 3 --weight +25% --reason "nightly backup"
    host-agent request vm3 --pages 4 --less --reason "batch is done"

Weight, rate and host share are in percent (of the capacity of weights, of a port's full rate, of the tenant's
processing); pages and slots are counted. Exit code 1 when the request is refused; the reason is printed.
"""

from __future__ import annotations

import argparse
import re

from host_agent.client import ManagerClient, tenant_number
from host_agent.commands import add_manager_flag
from morphnic.errors import InputError
from morphnic.program import Context
from offload_manager import api

#: Flag -> resource and unit as the manager counts it.
RESOURCES = {
    "weight": (api.Resource.BANDWIDTH, "%"),
    "rate": (api.Resource.RATE, "%"),
    "host_share": (api.Resource.HOST_SHARE, "%"),
    "pages": (api.Resource.PAGES, ""),
    "slots": (api.Resource.SLOTS, ""),
}
AMOUNT = re.compile(r"([+-]?)([0-9]+(?:\.[0-9]+)?)(%?)")


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of `host-agent request`."""
    parser.add_argument("tenant", help="tenant of the device, by number or name")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--weight", metavar="PERCENT", help="share of bandwidth: +25%%, or --weight=-10%%")
    what.add_argument("--rate", metavar="PERCENT", help="limit of the rate, of one port's full rate")
    what.add_argument("--host-share", metavar="PERCENT", help="processing done by the host's software twin")
    what.add_argument("--pages", metavar="N", help="guaranteed buffer pages")
    what.add_argument("--slots", metavar="N", help="engine slots of its own")
    parser.add_argument("--less", action="store_true", help="ask for less instead of more")
    parser.add_argument("--reason", metavar="TEXT", default="", help="kept with the decision")
    add_manager_flag(parser)


def run(arguments: argparse.Namespace, context: Context) -> int:
    """Send the request; 0 granted, 1 refused."""
    flag = next(name for name in RESOURCES if getattr(arguments, name) is not None)
    direction, amount = parse_amount(flag, getattr(arguments, flag), less=arguments.less)
    resource, unit = RESOURCES[flag]
    if len(arguments.reason) > 200:
        raise InputError(f"--reason must be at most 200 characters, not {len(arguments.reason)}")
    settings = context.settings.manager
    with ManagerClient(settings.url, timeout=settings.timeout) as client:
        tenant = tenant_number(arguments.tenant, client.tenants())
        answer = client.request(api.ResourceRequest(
            tenant=tenant, resource=resource, direction="less" if direction < 0 else "more", amount=amount,
            note=arguments.reason,
        ))
    if context.json:
        context.document("agent-request", answer.model_dump(mode="json", exclude={"schema_version"}))
    else:
        print(sentence(answer, unit))
    return 0 if answer.granted else 1


def parse_amount(flag: str, text: str, *, less: bool) -> tuple[int, float]:
    """Direction (+1 or -1) and amount of what was typed."""
    name = "--" + flag.replace("_", "-")
    percent = RESOURCES[flag][1] == "%"
    example = "+25%" if percent else "4"
    match = AMOUNT.fullmatch(text.strip())
    if match is None or (match[3] == "%" and not percent) or float(match[2]) == 0:
        raise InputError(f"{name} must be an amount over 0 such as {example}, not {text!r}")
    if not percent and "." in match[2]:
        raise InputError(f"{name} must be a whole number such as {example}, not {text!r}")
    if less and match[1] == "+":
        raise InputError(f"{name} {text} with --less asks for more and less at once; leave one of them out")
    return (-1 if less or match[1] == "-" else 1), float(match[2])


def sentence(answer: api.ResourceAnswer, unit: str) -> str:
    """The answer for people."""
    what = f"tenant {answer.tenant} {answer.resource.value.replace('_', ' ')}"
    if answer.granted:
        decision = "" if answer.decision is None else f" (decision {answer.decision})"
        detail = f": {answer.detail}" if answer.detail else ""
        return f"granted: {what} {answer.before:g}{unit} -> {answer.after:g}{unit}{decision}{detail}"
    text = f"refused ({answer.reason}): {what} stays {answer.before:g}{unit}: {answer.detail}"
    if answer.alternative is not None:
        text += f"; at most {answer.alternative:g}{unit} would have been granted"
    return text
