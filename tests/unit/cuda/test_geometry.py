"""How work is cut for a GPU, and what is computed of one number: a C++ program prints it."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PROGRAM = r"""
#include <cstdio>
#include "cuda/adam_formulas.h"
#include "cuda/activation.h"
#include "cuda/chunks.h"
#include "cuda/loss_formulas.h"
#include "cuda/norm.h"
#include "cuda/philox.h"
#include "cuda/rope.h"

using namespace mj;

void print_philox(Four counter, uint32_t key0, uint32_t key1) {
  const Four out = philox(counter, key0, key1);
  std::printf("philox %08x %08x %08x %08x\n", out.at[0], out.at[1], out.at[2], out.at[3]);
}

void print_chunks(std::vector<int64_t> sizes) {
  std::vector<void*> tensors(sizes.size());
  for (size_t n = 0; n < sizes.size(); ++n) tensors[n] = reinterpret_cast<void*>(n + 1);
  const std::span<void* const> lists[2] = {tensors, {}};
  send_chunks<2>(sizes, lists, [&](const Chunks<2>& out, int count) {
    std::printf("launch %d %d\n", int(out.first), count);
    for (int b = 0; b < count; ++b) {
      const int t = out.tensor[b];
      std::printf("chunk %d %d %d %d\n", int(reinterpret_cast<intptr_t>(out.tensors[0][t])),
                  out.chunk[b], int(out.sizes[t]), out.tensors[1][t] == nullptr);
    }
  });
}

int main() {
  for (int64_t packs : {1, 16, 96, 512, 2048, 2049, 100000}) {
    const Teams t = teams_for(1000, packs, 4, 128);
    std::printf("team %d %d %d\n", t.team, t.threads, int(t.blocks));
  }
  for (int64_t packs : {1, 3, 256, 704, 100000}) {
    for (int64_t rows : {1, 70000}) {
      const Tile t = tile_for(rows, packs, kSummingBlocks);
      const bool fits = t.grid.y * packs * 8 <= tile_scratch(packs * 8);
      std::printf("tile %d %d %d %d\n", t.across, int(t.grid.x), int(t.grid.y), fits);
    }
  }
  static_assert(norm_scratch(8, true) == 2 * norm_scratch(8, false));
  static_assert(loss_threads(256 << 10) == 1024 && loss_threads(64000) == 512);
  constexpr RopePlan plan = rope_plan(32, 128, 96, {16, 8});
  std::printf("rope %d %d %d %d\n", plan.turning, plan.copying, plan.lanes, plan.threads);
  print_philox({{0, 0, 0, 0}}, 0, 0);
  print_philox({{~0u, ~0u, ~0u, ~0u}}, ~0u, ~0u);
  print_philox({{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}}, 0xa4093822, 0x299f31d0);
  print_chunks({3, 0, 70000, 1});
  print_chunks(std::vector<int64_t>(40, 5));
  print_chunks({int64_t{322} << 16, 2});
}
"""


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[list[str]]]:
    """Words of each line that was printed, by its first one."""
    folder = tmp_path_factory.mktemp("geometry")
    (folder / "main.cpp").write_text("#include <vector>\n" + PROGRAM)
    flags = ["-std=c++20", "-O0", "-DMJ_EMULATED", f"-I{ROOT / 'csrc'}", "-Wno-unknown-pragmas"]
    command = ["g++", *flags, str(folder / "main.cpp"), "-o", str(folder / "main")]
    subprocess.run(command, check=True)
    printed = subprocess.run([folder / "main"], capture_output=True, text=True, check=True).stdout
    found: dict[str, list[list[str]]] = {}
    for line in printed.splitlines():
        first, *words = line.split()
        found.setdefault(first, []).append(words)
    return found


def numbers(lines: list[list[str]]) -> list[list[int]]:
    return [[int(word) for word in words] for words in lines]


def test_a_team_holds_its_row_and_short_rows_share_a_block(
    lines: dict[str, list[list[str]]],
) -> None:
    for packs, (team, threads, blocks) in zip(
        (1, 16, 96, 512, 2048, 2049, 100000), numbers(lines["team"]), strict=True
    ):
        assert 4 * team >= packs or team == 512
        assert team == 1 or 2 * team < packs
        assert threads == max(team, 128)
        assert blocks == -(-1000 // (threads // team))


def test_tiles_cover_every_number_and_their_sums_fit(lines: dict[str, list[list[str]]]) -> None:
    cases = [(packs, rows) for packs in (1, 3, 256, 704, 100000) for rows in (1, 70000)]
    for (packs, rows), (across, wide, high, fits) in zip(
        cases, numbers(lines["tile"]), strict=True
    ):
        assert across * wide >= packs > across * (wide - 1)
        assert 1 <= high <= max(1, 1056 // wide)
        assert high <= -(-rows // (256 // across))
        assert fits


def test_lanes_of_a_head(lines: dict[str, list[list[str]]]) -> None:
    assert lines["rope"] == [["6", "4", "16", "256"]]


def test_random_bits_are_those_of_the_paper(lines: dict[str, list[list[str]]]) -> None:
    """The known answers that come with Random123, of its authors."""
    assert [" ".join(words) for words in lines["philox"]] == [
        "6627e8d5 e169c58d bc57ac4c 9b00dbd8",
        "408f276d 41c83b0e a20bc7c6 6d5451fd",
        "d16cfe09 94fdcceb 5001e420 24126ea1",
    ]


def test_every_chunk_of_every_tensor_is_sent_once(lines: dict[str, list[list[str]]]) -> None:
    chunks = [tuple(words) for words in numbers(lines["chunk"])]
    expected = [(1, 0, 3, 1), (3, 0, 70000, 1), (3, 1, 70000, 1), (4, 0, 1, 1)]
    expected += [(n + 1, 0, 5, 1) for n in range(40)]
    expected += [(1, n, 322 << 16, 1) for n in range(322)] + [(2, 0, 2, 1)]
    assert chunks == expected
    assert numbers(lines["launch"]) == [[0, 4], [0, 36], [36, 4], [0, 320], [320, 3]]
