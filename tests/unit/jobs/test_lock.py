"""Two who submit one run at the same time."""

from pathlib import Path

import pytest

from megatron_jobs.errors import UserError
from megatron_jobs.jobs.lock import submitting


def test_one_at_a_time_submits_a_run(tmp_path: Path) -> None:
    with submitting(tmp_path):
        with pytest.raises(UserError) as caught, submitting(tmp_path):
            pass
        assert str(caught.value) == (
            f"{tmp_path}: is being submitted by somebody else at this moment"
        )
    with submitting(tmp_path):
        assert (tmp_path / ".submit").exists()
