// Runs the text of a CUDA kernel on a CPU: the threads of a block take turns, from one meeting point to the next, in
// an order that changes all the time, so that whoever reads what has not been written yet gets a wrong number.
#include <algorithm>
#include <cmath>
#include <csetjmp>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <type_traits>
#include <ucontext.h>
#include <utility>
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
// A switch by longjmp leaves the signal mask alone, and so the operating system; a context is for the first one only.
static std::jmp_buf scheduler;
static std::vector<std::jmp_buf *> threads_at;
static std::vector<std::vector<char>> stacks;
static std::vector<char> state;
enum { UNBORN, ALIVE, DONE };
static Meeting block, warps[32];
static char words[32][32][16];
static const std::function<void()> *kernel;

static void meet(Meeting &meeting) {
  const unsigned me = threadIdx.x, before = meeting.met;
  if (++meeting.waiting == meeting.size) {
    meeting.waiting = 0;
    ++meeting.met;
  }
  while (meeting.met == before)
    if (!_setjmp(*threads_at[me]))
      _longjmp(scheduler, 1);
}

static void start() {
  (*kernel)();
  state[threadIdx.x] = DONE;
  _longjmp(scheduler, 1);
}

static void resume(unsigned me, std::vector<char> &stack) {
  threadIdx = {me, 0, 0};
  if (_setjmp(scheduler))
    return;
  if (state[me] == ALIVE)
    _longjmp(*threads_at[me], 1);
  state[me] = ALIVE;
  ucontext_t context;
  getcontext(&context);
  context.uc_stack.ss_sp = stack.data();
  context.uc_stack.ss_size = stack.size();
  makecontext(&context, start, 0);
  setcontext(&context);
}

// One call of the kernel for every thread of every block.
static void run(Index grid, unsigned threads, const std::function<void()> &body) {
  while (stacks.size() < threads) {
    stacks.emplace_back(1 << 16);
    threads_at.push_back(new std::jmp_buf[1]);
  }
  kernel = &body;
  gridDim = grid;
  blockDim = {threads, 1, 1};
  unsigned turn = 1;
  for (unsigned b = 0; b < grid.x * grid.y * grid.z; ++b) {
    blockIdx = {b % grid.x, b / grid.x % grid.y, b / grid.x / grid.y};
    state.assign(threads, UNBORN);
    block = {threads};
    for (unsigned w = 0; w < threads / 32; ++w)
      warps[w] = {32};
    for (unsigned left = threads; left;) {
      // From another thread on every time, forwards or backwards.
      turn = turn * 1664525u + 1013904223u;
      for (unsigned i = 0; i < threads; ++i) {
        const unsigned place = (turn >> 8) + (turn >> 31 ? i : threads - i), t = place % threads;
        if (state[t] != DONE) {
          resume(t, stacks[t]);
          left -= state[t] == DONE;
        }
      }
    }
  }
}

template <typename A> A argument(std::uint64_t word) {
  if constexpr (std::is_pointer_v<A>)
    return reinterpret_cast<A>(word);
  else
    return A(std::int64_t(word));
}

template <typename... A, std::size_t... I>
void launch(void (*kernel)(A...), const unsigned *grid, const std::uint64_t *words, std::index_sequence<I...>) {
  run({grid[0], grid[1], grid[2]}, grid[3], [=] { kernel(argument<A>(words[I])...); });
}

template <typename... A> void launch(void (*kernel)(A...), const unsigned *grid, const std::uint64_t *words) {
  launch(kernel, grid, words, std::index_sequence_for<A...>());
}
} // namespace turns

static void __syncthreads() { turns::meet(turns::block); }

template <typename T> T __shfl_xor_sync(unsigned, T value, int apart) {
  const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  std::memcpy(turns::words[warp][lane], &value, sizeof(T));
  turns::meet(turns::warps[warp]);
  std::memcpy(&value, turns::words[warp][lane ^ apart], sizeof(T));
  turns::meet(turns::warps[warp]);
  return value;
}

static double __longlong_as_double(long long word) {
  double value;
  std::memcpy(&value, &word, sizeof(value));
  return value;
}
