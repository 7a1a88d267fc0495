"""Messages to people: a webhook is told of ends, failures and requeues; mails are Slurm's own.

The shape, an object with `text`, is what Slack, Mattermost and Teams take; the other fields are for
programs. https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks
"""

import http.client
import json
import urllib.error
import urllib.parse
import urllib.request
from typing import Any, Literal

from megatron_jobs.config.site import Notify
from megatron_jobs.jobs.cluster import cluster_of
from megatron_jobs.jobs.folder import JobFolder
from megatron_jobs.runtime.rank import slurm_job_id

News = Literal["end", "fail", "requeue"]
SECONDS = 5.0
MAIL_TYPES = {"end": "END", "fail": "FAIL", "requeue": "REQUEUE"}
"""Of sbatch(1), --mail-type."""


def tell(folder: JobFolder, event: News, text: str, **facts: Any) -> None:
    """Post a message to the profile's webhook, if it wants that event.

    A webhook that cannot be reached is named in the log and harms nothing; tasks only tell of
    their failures.

    Args:
        facts: more fields, such as reason, rank and node.
    """
    cluster = cluster_of(folder)
    if cluster is None or not cluster.notify.webhook or event not in cluster.notify.on:
        return
    if folder.task is not None and event != "fail":
        return
    run = folder.whole.parent.name
    body = {"text": f"{run}: {folder.name}: {text}", "run": run, "job": folder.whole.name}
    body |= {"event": event, "slurm_id": slurm_job_id(), "folder": str(folder.path), **facts}
    fault = _post(cluster.notify.webhook, body)
    if fault:
        host = urllib.parse.urlsplit(cluster.notify.webhook).hostname  # the rest may be a secret
        print(f"notify.webhook: {host} was not told: {fault}", flush=True)


def _post(url: str, body: dict[str, Any]) -> str:
    """Why the message did not arrive, or nothing."""
    data = json.dumps(body, default=str).encode()
    headers = {"Content-Type": "application/json"}
    try:
        request = urllib.request.Request(url, data, headers, method="POST")
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            answer.read(1000)
    except urllib.error.HTTPError as error:
        return f"it answered {error.code} {error.reason}"
    except (OSError, ValueError, http.client.HTTPException) as error:
        return str(getattr(error, "reason", "") or error or type(error).__name__)
    return ""


def mail_words(notify: Notify) -> dict[str, str]:
    """Parameters of sbatch that make Slurm send mails."""
    if not notify.mail or not notify.on:
        return {}
    types = ",".join(MAIL_TYPES[event] for event in notify.on)
    return {"mail-user": notify.mail, "mail-type": types}
