// Runs the text of a CUDA kernel on a CPU: the threads of a block take turns, from one meeting point to the next.
#include <algorithm>
#include <cstring>
#include <functional>
#include <ucontext.h>
#include <vector>

#define __global__
#define __device__
#define __shared__ static
#define __launch_bounds__(threads)

struct Index {
  unsigned x, y, z;
};
static Index threadIdx, blockIdx, blockDim, gridDim;
using std::min;

namespace turns {
struct Meeting {
  unsigned size = 0, waiting = 0, met = 0;
};
static ucontext_t scheduler;
static std::vector<ucontext_t> contexts;
static std::vector<char> done;
static Meeting block, warps[32];
static char words[32][32][16];
static const std::function<void()> *kernel;

inline void meet(Meeting &meeting) {
  const unsigned me = threadIdx.x, before = meeting.met;
  if (++meeting.waiting == meeting.size) {
    meeting.waiting = 0;
    ++meeting.met;
  }
  while (meeting.met == before) {
    swapcontext(&contexts[me], &scheduler);
    threadIdx.x = me;
  }
}

inline void start() {
  const unsigned me = threadIdx.x;
  (*kernel)();
  done[me] = 1;
}

// One call of the kernel for every thread of every block.
inline void run(Index grid, unsigned threads, const std::function<void()> &body) {
  std::vector<std::vector<char>> stacks(threads, std::vector<char>(1 << 17));
  kernel = &body;
  gridDim = grid;
  blockDim = {threads, 1, 1};
  for (unsigned b = 0; b < grid.x * grid.y * grid.z; ++b) {
    blockIdx = {b % grid.x, b / grid.x % grid.y, b / grid.x / grid.y};
    contexts.assign(threads, {});
    done.assign(threads, 0);
    block = {threads};
    for (unsigned w = 0; w < threads / 32; ++w)
      warps[w] = {32};
    for (unsigned t = 0; t < threads; ++t) {
      getcontext(&contexts[t]);
      contexts[t].uc_stack.ss_sp = stacks[t].data();
      contexts[t].uc_stack.ss_size = stacks[t].size();
      contexts[t].uc_link = &scheduler;
      makecontext(&contexts[t], start, 0);
    }
    for (unsigned left = threads; left;)
      for (unsigned t = 0; t < threads; ++t)
        if (!done[t]) {
          threadIdx = {t, 0, 0};
          swapcontext(&scheduler, &contexts[t]);
          left -= done[t];
        }
  }
}
} // namespace turns

inline void __syncthreads() { turns::meet(turns::block); }

template <typename T> T __shfl_xor_sync(unsigned, T value, int apart) {
  const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  std::memcpy(turns::words[warp][lane], &value, sizeof(T));
  turns::meet(turns::warps[warp]);
  std::memcpy(&value, turns::words[warp][lane ^ apart], sizeof(T));
  turns::meet(turns::warps[warp]);
  return value;
}
