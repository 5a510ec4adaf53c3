"""The one exception that means "the input is wrong": the command line prints it as one line and exits with code 2."""


class InputError(Exception):
    """Names the file, key or value, what is wrong with it, and what would be right."""


class StopRequested(Exception):
    """A stage was asked to stop (SIGTERM, SIGUSR1/2, Ctrl-C), saved its state, and will continue when started again."""


class RankEnded(Exception):
    """One of the processes that computed a run together died; the run continues when it is started again."""
