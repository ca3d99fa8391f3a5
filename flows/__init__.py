"""One module per deployment: the order of stages, nothing else."""

import logging
import os

from flows import sentences
from tasks.settle import forget_stale, settle_prefect

settle_prefect()
forget_stale()

# read when Prefect is imported: our log lines go where Prefect's go
os.environ.setdefault("PREFECT_LOGGING_EXTRA_LOGGERS", "tai")
# input is checked before a flow begins, and some commands have no flow
os.environ.setdefault("PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW", "ignore")
# its first start migrates a database, which takes longer than the default on a busy machine
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "180")
logging.getLogger("tai").setLevel(logging.INFO)
sentences.install()
