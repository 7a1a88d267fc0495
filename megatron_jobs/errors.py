"""The tree of errors that a person may meet.

MegatronJobsError
|-- UserError      something the user can mend: no traceback, exit status 2
|   `-- ConfigError    every fault of a configuration, in one message
|-- DataError      a file says one thing and holds another: no traceback, exit status 2
`-- Stopped        asked to stop in time (signal, time limit); state is saved, the job is not done

Anything else that escapes is a bug of ours and shows its traceback (exit status 1).
"""

from collections.abc import Sequence

EXIT_DONE = 0
EXIT_BUG = 1
EXIT_USER = 2
EXIT_NOTHING_TO_DO = 3
"""Of a batch script's first step: the receipt holds."""
EXIT_DECIDED = 4
"""Of a batch script's first step: RUN/JOB/next says what to do; no rank is to start."""
EXIT_UNFIT = 5
"""Of the preflight: too few good nodes."""
EXIT_STOPPED = 75
"""EX_TEMPFAIL of sysexits.h: run the same job again and it goes on."""


class MegatronJobsError(Exception):
    """Base of all errors that this package raises on purpose."""


class UserError(MegatronJobsError):
    """`where: found value, rule broken; what would work`; the user can mend it."""


class DataError(MegatronJobsError):
    """A file is not what its header, name or manifest says."""


class Stopped(MegatronJobsError):
    """The job was asked to stop and saved its state; running it again goes on."""


class ConfigError(UserError):
    """All faults of one configuration.

    Args:
        where: the file, as the user typed it.
        problems: (setting, sentence) pairs; the setting is a dotted name.
    """

    def __init__(self, where: str, problems: Sequence[tuple[str, str]]) -> None:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        lines = [f"  {setting}: {sentence}" for setting, sentence in problems]
        super().__init__("\n".join([f"{where}: {count}, nothing was started", *lines]))
        self.problems = list(problems)
