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
            Mesh(pipeline=2, virtual=2, layers=(1, 2)),
            ("layers", "2 blocks of layers, must be pipeline x virtual = 2 x 2 = 4"),
        ),
        (
            Mesh(expert=2, tensor=2),
            ("sequence_parallel", "experts on tensor ranks need sequence_parallel: true"),
        ),
    ],
)
def test_axes_that_clash(mesh: Mesh, problem: tuple[str, str]) -> None:
    assert list(mesh.problems()) == [problem]


@pytest.mark.parametrize("pipeline", range(1, 9))
@pytest.mark.parametrize("virtual", [1, 2, 3])
def test_layers_are_dealt_out_evenly(pipeline: int, virtual: int) -> None:
    mesh = Mesh(pipeline=pipeline, virtual=virtual)
    for layers in range(mesh.blocks, 70):
        counts = mesh.block_layers(layers)
        assert (len(counts), sum(counts)) == (mesh.blocks, layers)
        assert max(counts) - min(counts) <= 1
        assert counts[-1] == min(counts), "it has the output layer too"
        stages = mesh.stage_layers(layers)
        assert stages == tuple(sum(counts[s::pipeline]) for s in range(pipeline))
        assert max(stages) - min(stages) <= 1


def test_layers_of_blocks() -> None:
    assert Mesh(pipeline=4).block_layers(61) == (15, 16, 15, 15)
    assert Mesh(pipeline=4).block_layers(62) == (15, 16, 16, 15)
    assert Mesh(pipeline=4).block_layers(63) == (16, 16, 16, 15)
    assert Mesh(pipeline=2, virtual=2).stage_layers(6) == (3, 3)
    assert Mesh(pipeline=2, layers=(5, 1)).block_layers(6) == (5, 1)


def test_a_layout_is_what_it_was_before_there_were_layers() -> None:
    """So that what was saved then goes on bit by bit."""
    assert "layers" not in Mesh(pipeline=2).layout(6)
    assert Mesh(pipeline=2, layers=(3, 3)).layout(6) == Mesh(pipeline=2).layout(6)
    assert Mesh(pipeline=2, layers=(5, 1)).layout(6)["layers"] == "5+1"
    assert Mesh(pipeline=3).layout(4) == Mesh(pipeline=3, layers=(1, 2, 1)).layout(4)


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
