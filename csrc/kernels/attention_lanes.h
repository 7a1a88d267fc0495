// Blocks of queries against blocks of keys: see every_machine.h. Scores lie transposed, keys down
// and queries along the vectors: maxima and sums over keys then are those of whole vectors.
#include "kernels/attention_tiles.h"
#include "kernels/attention_rows.h"
#include "kernels/attention_sight.h"
#include "kernels/attention_forward.h"
#include "kernels/attention_backward.h"
