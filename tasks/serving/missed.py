"""What happened to runs while the server was down: asked before and after flows are deployed.

A deployment forgets its scheduled runs, late ones too. So what was missed is looked for before, and
made up once after, however many nights it were.
"""

import sys
from datetime import UTC, datetime
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import State, StateType
from prefect.states import Crashed

UNDER_WAY = [StateType.RUNNING, StateType.PENDING, StateType.CANCELLING]


def before(client: SyncPrefectClient) -> list[UUID]:
    """End runs that no worker is at work on; deployments with a scheduled run that was missed."""
    of = {"state": {"type": {"any_": [each.value for each in UNDER_WAY]}}}
    for run in client.read_flow_runs(flow_run_filter=FlowRunFilter.model_validate(of)):
        told = "its worker was ended; run it again, and it goes on where it was"
        state: State[None] = Crashed(message=told)
        client.set_flow_run_state(run.id, state, force=True)
    of = {"state": {"type": {"any_": [StateType.SCHEDULED.value]}}}
    missed = {
        run.deployment_id
        for run in client.read_flow_runs(flow_run_filter=FlowRunFilter.model_validate(of))
        if run.auto_scheduled
        and run.deployment_id
        and run.expected_start_time
        and run.expected_start_time < datetime.now(UTC)
    }
    return sorted(missed)


def after(client: SyncPrefectClient, missed: list[UUID]) -> None:
    """One run for each of them, now; late ones that are still there would be further ones."""
    for deployment in missed:
        of = {
            "deployment_id": {"any_": [str(deployment)]},
            "state": {"type": {"any_": [StateType.SCHEDULED.value]}},
            "expected_start_time": {"before_": datetime.now(UTC)},
        }
        for run in client.read_flow_runs(flow_run_filter=FlowRunFilter.model_validate(of)):
            client.delete_flow_run(run.id)
        client.create_flow_run_from_deployment(deployment, tags=["made up"])


if __name__ == "__main__":
    with get_client(sync_client=True) as opened:
        if sys.argv[1] == "before":
            sys.stdout.write(" ".join(map(str, before(opened))))
        else:
            after(opened, [UUID(word) for word in sys.argv[2:]])
