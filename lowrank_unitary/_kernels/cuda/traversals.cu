// The two traversals of row-major matrices on a GPU, and the reduction of partial sums.
//
// All is real: a complex row is a real row of twice the length, with twice as many thin columns.
// A block reads whole rows, R at a time (register blocking). Each of its threads holds the same G packs of V
// adjacent numbers of every row in registers, from the dot products to the update: the matrix is read once.
// Thin factors are rows of the same length, W of them; a stack has one matrix for every blockIdx.x.
// Blocks have a multiple of 32 threads. No atomics: the same input gives the same result.

template <typename T, int V> struct alignas(sizeof(T) * V) Pack {
  T x[V];
};

template <typename T, int V> __device__ Pack<T, V> load(const T *row, int pack) {
  return reinterpret_cast<const Pack<T, V> *>(row)[pack];
}

struct Sum {
  template <typename T> static __device__ T of(T x, T y) { return x + y; }
};

// For non-negative numbers; ignores NaN.
struct Largest {
  template <typename T> static __device__ T of(T x, T y) { return y > x ? y : x; }
};

template <typename Op, typename T> __device__ T of_warp(T value) {
  for (int apart = 16; apart > 0; apart /= 2)
    value = Op::of(value, __shfl_xor_sync(0xffffffffu, value, apart));
  return value;
}

// A reduction over all threads of the block, with the result in every thread.
template <typename Op, typename T, int M> __device__ void of_block(T (&values)[M]) {
  __shared__ T scratch[32 * M], result[M];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  for (int m = 0; m < M; ++m)
    values[m] = of_warp<Op>(values[m]);
  if (lane == 0)
    for (int m = 0; m < M; ++m)
      scratch[32 * m + warp] = values[m];
  __syncthreads();
  for (int m = warp; m < M; m += warps) {
    const T all = of_warp<Op>(lane < warps ? scratch[32 * m + lane] : T(0));
    if (lane == 0)
      result[m] = all;
  }
  __syncthreads();
  for (int m = 0; m < M; ++m)
    values[m] = result[m];
}

// Rows top … top + R − 1 of a matrix; zeros beyond the last.
template <typename T, int V, int G, int R>
__device__ void load_rows(Pack<T, V> (&u)[R][G], const T *matrix, int top, int end, int columns, int start) {
  for (int g = 0; g < G; ++g) {
    const int pack = start + g * blockDim.x + threadIdx.x;
    for (int r = 0; r < R; ++r)
      if (pack < columns / V && top + r < end)
        u[r][g] = load<T, V>(matrix + (long long)(top + r) * columns, pack);
      else
        for (int v = 0; v < V; ++v)
          u[r][g].x[v] = 0;
  }
}

// dots[r W + w] = row r · left row w, for every thread.
template <typename T, int V, int G, int R, int W>
__device__ void dot_rows(T (&dots)[R * W], const Pack<T, V> (&u)[R][G], const T *left, int columns) {
  for (int m = 0; m < R * W; ++m)
    dots[m] = 0;
  for (int g = 0; g < G; ++g) {
    const int pack = g * blockDim.x + threadIdx.x;
    if (pack < columns / V)
      for (int w = 0; w < W; ++w) {
        const Pack<T, V> along = load<T, V>(left + (long long)w * columns, pack);
        for (int r = 0; r < R; ++r)
          for (int v = 0; v < V; ++v)
            dots[r * W + w] += u[r][g].x[v] * along.x[v];
      }
  }
  of_block<Sum>(dots);
}

// target[i] = source[i] + Σ_w (source[i] · left[w]) right[w]; one block for R rows. They may alias.
template <typename T, int V, int G, int R, int W>
__global__ void __launch_bounds__(512)
    rotate(const T *source, T *target, const T *left, const T *right, int rows, int columns) {
  Pack<T, V> u[R][G];
  T dots[R * W];
  const int top = blockIdx.y * R;
  load_rows<T, V, G, R>(u, source + (long long)blockIdx.x * rows * columns, top, rows, columns, 0);
  dot_rows<T, V, G, R, W>(dots, u, left + (long long)blockIdx.x * W * columns, columns);
  target += (long long)blockIdx.x * rows * columns;
  right += (long long)blockIdx.x * W * columns;
  for (int g = 0; g < G; ++g) {
    const int pack = g * blockDim.x + threadIdx.x;
    if (pack >= columns / V)
      continue;
    // Summed first and rounded into the row once: rounding makes a matrix drift from unitary.
    Pack<T, V> change[R] = {};
    for (int w = 0; w < W; ++w) {
      const Pack<T, V> along = load<T, V>(right + (long long)w * columns, pack);
      for (int r = 0; r < R; ++r)
        for (int v = 0; v < V; ++v)
          change[r].x[v] += dots[r * W + w] * along.x[v];
    }
    for (int r = 0; r < R; ++r)
      if (top + r < rows) {
        for (int v = 0; v < V; ++v)
          change[r].x[v] += u[r][g].x[v];
        reinterpret_cast<Pack<T, V> *>(target + (long long)(top + r) * columns)[pack] = change[r];
      }
  }
}

// out[i, first + w] = source[i] · left[first + w], of `all` left rows; one block for R rows.
template <typename T, int V, int G, int R, int W>
__global__ void __launch_bounds__(512)
    look(const T *source, const T *left, T *out, int rows, int columns, int first, int all) {
  Pack<T, V> u[R][G];
  T dots[R * W];
  const int top = blockIdx.y * R;
  load_rows<T, V, G, R>(u, source + (long long)blockIdx.x * rows * columns, top, rows, columns, 0);
  dot_rows<T, V, G, R, W>(dots, u, left + ((long long)blockIdx.x * all + first) * columns, columns);
  out += (long long)blockIdx.x * rows * all + first;
  if (threadIdx.x == 0)
    for (int m = 0; m < R * W; ++m)
      if (top + m / W < rows)
        out[(long long)(top + m / W) * all + m % W] = dots[m];
}

// partial[s, w] = Σ_i weights[i, w] source[i] over the rows i of slab s, of `height` rows each, for blockIdx.y = s;
// and below them, partial[s, W + p] = Σ_i (source[i] · probes[p]) source[i]. Without probes the rows may be cut
// into pieces of G packs a thread, one for every blockIdx.z. The weights are W of `all` columns, from `first` on.
template <typename T, int V, int G, int R, int W, int P>
__global__ void __launch_bounds__(512)
    gather(const T *source, const T *weights, const T *probes, T *partial, int rows, int columns, int height,
           int first, int all) {
  const int start = blockIdx.z * G * blockDim.x;
  source += (long long)blockIdx.x * rows * columns;
  weights += (long long)blockIdx.x * rows * all + first;
  probes += (long long)blockIdx.x * P * columns;
  partial += ((long long)blockIdx.x * gridDim.y + blockIdx.y) * (W + P) * columns;
  const int end = min(rows, (int)(blockIdx.y + 1) * height);
  Pack<T, V> total[W + P][G] = {};
  for (int top = blockIdx.y * height; top < end; top += R) {
    Pack<T, V> u[R][G];
    load_rows<T, V, G, R>(u, source, top, end, columns, start);
    T weight[R][W + P];
    for (int r = 0; r < R; ++r)
      for (int w = 0; w < W; ++w)
        weight[r][w] = top + r < end ? weights[(long long)(top + r) * all + w] : T(0);
    if constexpr (P > 0) {
      T dots[R * P];
      dot_rows<T, V, G, R, P>(dots, u, probes, columns);
      for (int r = 0; r < R; ++r)
        for (int p = 0; p < P; ++p)
          weight[r][W + p] = dots[r * P + p];
    }
    for (int r = 0; r < R; ++r)
      for (int w = 0; w < W + P; ++w)
        for (int g = 0; g < G; ++g)
          for (int v = 0; v < V; ++v)
            total[w][g].x[v] += weight[r][w] * u[r][g].x[v];
  }
  for (int w = 0; w < W + P; ++w)
    for (int g = 0; g < G; ++g) {
      const int pack = start + g * blockDim.x + threadIdx.x;
      if (pack < columns / V)
        reinterpret_cast<Pack<T, V> *>(partial + (long long)w * columns)[pack] = total[w][g];
    }
}

// total[place + i] = Σ_s partial[s, i], in the order of the slabs, for `size` of `all` numbers of each matrix.
template <typename T>
__global__ void add_slabs(const T *partial, T *total, int slabs, int size, int place, int all) {
  partial += (long long)blockIdx.x * slabs * size;
  total += (long long)blockIdx.x * all + place;
  const int i = blockIdx.y * blockDim.x + threadIdx.x;
  if (i >= size)
    return;
  T sum = 0;
  // Several loads in flight, with the same order of summation.
#pragma unroll 16
  for (int s = 0; s < slabs; ++s)
    sum += partial[(long long)s * size + i];
  total[i] = sum;
}

// target = source + dots right with given products, for more columns than registers hold. A thread changes one
// pack of R rows. They may alias.
template <typename T, int V, int R>
__global__ void __launch_bounds__(256)
    add_products(const T *source, T *target, const T *dots, const T *right, int rows, int columns, int width) {
  const int top = blockIdx.y * R, pack = blockIdx.z * blockDim.x + threadIdx.x;
  if (pack >= columns / V)
    return;
  source += (long long)blockIdx.x * rows * columns;
  target += (long long)blockIdx.x * rows * columns;
  dots += ((long long)blockIdx.x * rows + top) * width;
  right += (long long)blockIdx.x * width * columns;
  Pack<T, V> change[R] = {};
  for (int w = 0; w < width; ++w) {
    const Pack<T, V> along = load<T, V>(right + (long long)w * columns, pack);
    for (int r = 0; r < R; ++r)
      if (top + r < rows)
        for (int v = 0; v < V; ++v)
          change[r].x[v] += dots[r * width + w] * along.x[v];
  }
  for (int r = 0; r < R; ++r)
    if (top + r < rows) {
      const long long place = (long long)(top + r) * columns;
      const Pack<T, V> u = load<T, V>(source + place, pack);
      for (int v = 0; v < V; ++v)
        change[r].x[v] += u.x[v];
      reinterpret_cast<Pack<T, V> *>(target + place)[pack] = change[r];
    }
}
