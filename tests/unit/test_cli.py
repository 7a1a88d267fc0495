"""What `mj --help` says fits a terminal."""

import pytest

from megatron_jobs.cli import main


@pytest.mark.parametrize(("words", "commands"), [([], 15), (["cluster"], 3), (["data"], 3)])
def test_no_line_is_cut_in_80_columns(
    words: list[str],
    commands: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main([*words, "--help"]) == 0
    listed = capsys.readouterr().out.partition("Commands:\n")[2].splitlines()
    assert len(listed) == commands
    for line in listed:
        name, about = line.split(maxsplit=1)
        assert about.endswith("."), f"{name}: {about}"
        assert not about.endswith("..."), f"{name}: {about}"
        assert len(about) <= 60, f"{name}: {len(about)} characters"
