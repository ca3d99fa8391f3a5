"""One module per deployment: the order of stages, nothing else."""

import logging
import os

# read when Prefect is imported: our log lines go where Prefect's go
os.environ.setdefault("PREFECT_LOGGING_EXTRA_LOGGERS", "tai")
logging.getLogger("tai").setLevel(logging.INFO)
