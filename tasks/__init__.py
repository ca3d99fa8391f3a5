"""One module per stage: side effects, caching, retries and progress."""
