from tests.support.slurm.sweeps import sweep, trained  # noqa: F401
