"""What a mesh refuses, in its own words."""

import pytest

from megatron_jobs.config.mesh import Mesh

FULL = Mesh(tensor=2, pipeline=2, context=2, sequence_parallel=True)


def test_data_ranks_are_what_is_left() -> None:
    assert FULL.data(32) == 4
    assert Mesh().data(3) == 3


def test_a_good_mesh_has_no_problems() -> None:
    assert not list(FULL.problems())
    assert not list(FULL.rank_problems(16))
    assert not list(FULL.batch_problems(64, 2, 16))
    assert not list(FULL.sequence_problems(64))


@pytest.mark.parametrize(
    ("mesh", "problem"),
    [
        (
            Mesh(virtual=2),
            ("virtual", "2 needs pipeline > 1; there is one stage to interleave"),
        ),
        (
            Mesh(sequence_parallel=True),
            ("sequence_parallel", "needs tensor > 1: it cuts along the tensor ranks"),
        ),
        (
            Mesh(expert=2, tensor=2),
            ("sequence_parallel", "experts on tensor ranks need sequence_parallel: true"),
        ),
    ],
)
def test_axes_that_clash(mesh: Mesh, problem: tuple[str, str]) -> None:
    assert list(mesh.problems()) == [problem]


def test_ranks_that_do_not_divide() -> None:
    sentence = "tensor x pipeline x context = 2 x 2 x 2 = 8 does not divide 12 ranks"
    assert list(FULL.rank_problems(12)) == [
        ("tensor", f"{sentence}; the next that works: 16"),
    ]
    assert list(Mesh(expert=4).rank_problems(6)) == [
        ("expert", "expert x expert_tensor x pipeline = 4 does not divide 6 ranks"),
    ]


def test_batches_that_do_not_divide() -> None:
    rule = "10 is not a multiple of micro_size x data = 2 x 4 = 8; the next that is: 16"
    assert list(Mesh().batch_problems(10, 2, 4)) == [("global_size", rule)]
    mesh = Mesh(pipeline=2, virtual=2)
    rule = "gives 3 micro batches a rank, not a multiple of pipeline = 2, as virtual > 1 needs"
    assert list(mesh.batch_problems(6, 1, 4)) == [("global_size", rule)]
    assert not list(Mesh(tensor=4).batch_problems(1, 1, 2)), "said by rank_problems already"


def test_sequences_that_cannot_be_cut() -> None:
    rule = "30 cannot be cut into 4 pieces, two for each context rank"
    assert list(Mesh(context=2).sequence_problems(30)) == [("seq_len", rule)]
    mesh = Mesh(tensor=3, context=2, sequence_parallel=True)
    rule = "32 over 2 context ranks cannot be cut over 3 tensor ranks (sequence_parallel)"
    assert list(mesh.sequence_problems(32)) == [("seq_len", rule)]
