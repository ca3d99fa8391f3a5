"""Captions from outside into Parquet: readers, downloads, the ingest stage."""
