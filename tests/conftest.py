"""What holds for every test."""

from hypothesis import settings

# a machine that does other things too is no fault of the code's
settings.register_profile("patient")
settings.load_profile("patient")
