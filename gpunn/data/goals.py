"""The name under which pickles of earlier versions look for what a network's outputs mean."""

from gpunn.data.targets import *  # noqa: F403
