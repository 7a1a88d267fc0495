// Connected components: union-find over a share of the vertices, lower numbers always on top.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "copies/runs.h"

namespace mj {

// The share [first, last) of all vertices.  Each vertex points to itself or to a lower one, in the
// share or, only from the top of a tree, below it.  What joins two vertices below the share is not
// kept but handed on; so shares that work through their edges and hand on what is left, until none
// is, hold together one forest: its roots are the least numbers of the components.
class Links {
 public:
  Links(int64_t first, int64_t last);
  Links(int64_t first, std::vector<int64_t> parents);  // as `parents` gave them

  // Take edges whose higher ends lie in the share; returns those for lower shares, none twice
  // in a row.
  std::vector<Edge> add(std::span<const Edge> edges);

  // The top of the tree in this share that holds `vertex`.
  int64_t top(int64_t vertex);

  int64_t first() const { return first_; }
  int64_t last() const { return first_ + static_cast<int64_t>(parents_.size()); }
  const std::vector<int64_t>& parents() const { return parents_; }

 private:
  int64_t& parent(int64_t vertex) { return parents_[static_cast<size_t>(vertex - first_)]; }
  bool join(int64_t high, int64_t low, Edge& left);

  int64_t first_;
  std::vector<int64_t> parents_;
};

}  // namespace mj
