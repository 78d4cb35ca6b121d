// Thin factors on a GPU: in double precision, or laid out as real rows for the traversals.
//
// P numbers of type T make an entry: 1 for real matrices, 2 for complex ones. A thin factor has one row for
// every entry of a row of U; a stack has one factor for every blockIdx.x.

struct Complex {
  double re, im;
};

__device__ inline Complex operator+(Complex x, Complex y) { return {x.re + y.re, x.im + y.im}; }
__device__ inline Complex operator-(Complex x, Complex y) { return {x.re - y.re, x.im - y.im}; }
__device__ inline Complex operator*(Complex x, Complex y) {
  return {x.re * y.re - x.im * y.im, x.re * y.im + x.im * y.re};
}
__device__ inline Complex operator*(double s, Complex x) { return {s * x.re, s * x.im}; }
__device__ inline Complex operator/(Complex x, double s) { return {x.re / s, x.im / s}; }
__device__ inline Complex conjugate(Complex x) { return {x.re, -x.im}; }
__device__ inline double conjugate(double x) { return x; }
__device__ inline double square(Complex x) { return x.re * x.re + x.im * x.im; }
__device__ inline double square(double x) { return x * x; }
__device__ inline double absolute(Complex x) { return hypot(x.re, x.im); }
__device__ inline double absolute(double x) { return fabs(x); }
__device__ inline double real_part(Complex x) { return x.re; }
__device__ inline double real_part(double x) { return x; }
__device__ inline double longest_part(Complex x) { return Largest::of(Largest::of(0.0, fabs(x.re)), fabs(x.im)); }
__device__ inline double longest_part(double x) { return Largest::of(0.0, fabs(x)); }

// The type of numbers, to which a complex result of real arguments is cast.
template <int P> struct Wide;
template <> struct Wide<1> {
  using type = double;
  static __device__ double of(Complex x) { return x.re; }
  static __device__ double real(double x) { return x; }
};
template <> struct Wide<2> {
  using type = Complex;
  static __device__ Complex of(Complex x) { return x; }
  static __device__ Complex real(double x) { return {x, 0}; }
};

__device__ inline Complex as_complex(Complex x) { return x; }
__device__ inline Complex as_complex(double x) { return {x, 0}; }

// The parts of a number, for reductions.
__device__ inline void store(double *parts, Complex x) {
  parts[0] = x.re;
  parts[1] = x.im;
}
__device__ inline void store(double *parts, double x) { parts[0] = x; }
template <int P> __device__ typename Wide<P>::type number(const double *parts);
template <> __device__ inline double number<1>(const double *parts) { return parts[0]; }
template <> __device__ inline Complex number<2>(const double *parts) { return {parts[0], parts[1]}; }

template <typename T, int P> __device__ typename Wide<P>::type entry(const T *x, long long i) {
  if constexpr (P == 1)
    return double(x[i]);
  else
    return {double(x[2 * i]), double(x[2 * i + 1])};
}

template <typename T> __device__ void put(T *x, long long i, double value) { x[i] = T(value); }
template <typename T> __device__ void put(T *x, long long i, Complex value) {
  x[2 * i] = T(value.re);
  x[2 * i + 1] = T(value.im);
}

// Entry m of column w, as real rows whose dot products with a real row are the parts of row · column, and along
// which a product with columnᴴ changes a row.
template <typename T> __device__ void lay(T *rows, int n, int w, int m, double x) {
  rows[(long long)w * n + m] = T(x);
}
template <typename T> __device__ void lay(T *rows, int n, int w, int m, Complex x) {
  T *first = rows + 2LL * w * 2 * n, *second = first + 2 * n;
  first[2 * m] = second[2 * m + 1] = T(x.re);
  first[2 * m + 1] = T(-x.im);
  second[2 * m] = T(x.im);
}

// Entry m of column w of Σ conj(row) · weight, from the real sums with all parts of the weights.
template <typename T, int P> __device__ typename Wide<P>::type collected(const T *total, int n, int w, int m) {
  if constexpr (P == 1)
    return double(total[(long long)w * n + m]);
  else {
    const T *first = total + 2LL * w * 2 * n + 2 * m, *second = first + 2 * n;
    return {double(first[0]) + double(second[1]), double(second[0]) - double(first[1])};
  }
}

// 2 to the power of the exponent of a size; 1 for zero and infinity. Neither it nor its inverse leaves the range.
__device__ inline int exponent_of(double size) {
  int exponent = 0;
  if (size > 0 && size <= 1.7976931348623157e308)
    frexp(size, &exponent);
  return exponent < -1021 ? -1021 : exponent > 1022 ? 1022 : exponent;
}

// rows = thin factors (n, width) laid out; one thread for every entry of a column.
template <typename T, int P> __global__ void lay_out(const T *thin, T *rows, int n, int width) {
  thin += (long long)blockIdx.x * n * width * P;
  rows += (long long)blockIdx.x * n * width * P * P;
  const int m = blockIdx.y * blockDim.x + threadIdx.x;
  if (m < n)
    for (int w = 0; w < width; ++w)
      lay(rows, n, w, m, entry<T, P>(thin, (long long)m * width + w));
}

// thin factors (n, width) from the real sums of `gather`.
template <typename T, int P> __global__ void collect(const T *total, T *thin, int n, int width) {
  total += (long long)blockIdx.x * n * width * P * P;
  thin += (long long)blockIdx.x * n * width * P;
  const int m = blockIdx.y * blockDim.x + threadIdx.x;
  if (m < n)
    for (int w = 0; w < width; ++w)
      put(thin, (long long)m * width + w, collected<T, P>(total, n, w, m));
}

// scaled = thin factors with a largest entry near 1 in every column, and the powers of two to undo it: a product
// with a unitary matrix then neither overflows nor underflows. One block for every column.
template <typename T, int P>
__global__ void __launch_bounds__(512) scale_columns(const T *thin, T *scaled, double *power, int n, int width) {
  const int w = blockIdx.y;
  thin += (long long)blockIdx.x * n * width * P;
  scaled += (long long)blockIdx.x * n * width * P;
  double size[1] = {0};
  for (int m = threadIdx.x; m < n; m += blockDim.x)
    size[0] = Largest::of(size[0], longest_part(entry<T, P>(thin, (long long)m * width + w)));
  of_block<Largest>(size);
  const int exponent = exponent_of(size[0]);
  for (int m = threadIdx.x; m < n; m += blockDim.x)
    put(scaled, (long long)m * width + w, ldexp(1.0, -exponent) * entry<T, P>(thin, (long long)m * width + w));
  if (threadIdx.x == 0)
    power[(long long)blockIdx.x * width + w] = ldexp(1.0, exponent);
}

// The sum of a warp's parts of a number.
template <int P> __device__ typename Wide<P>::type of_warp_number(typename Wide<P>::type x) {
  double parts[P];
  store(parts, x);
  for (int i = 0; i < P; ++i)
    parts[i] = of_warp<Sum>(parts[i]);
  return number<P>(parts);
}

// out = op(a) b for stacks of thin or small matrices, op the conjugate transpose where `adjoint` is set: (rows,
// inner) by (inner, columns). A warp sums an entry in double precision. Some general libraries cannot be recorded in
// a graph, others round their factors.
template <typename T, int P>
__global__ void thin_product(const T *a, const T *b, T *out, int rows, int inner, int columns, int adjoint) {
  a += (long long)blockIdx.x * rows * inner * P;
  b += (long long)blockIdx.x * inner * columns * P;
  out += (long long)blockIdx.x * rows * columns * P;
  const int lane = threadIdx.x % 32, warps = blockDim.x / 32;
  const long long size = (long long)rows * columns;
  for (long long e = (long long)blockIdx.y * warps + threadIdx.x / 32; e < size; e += gridDim.y * warps) {
    const long long i = e / columns, j = e % columns;
    typename Wide<P>::type sum = Wide<P>::real(0);
    for (int l = lane; l < inner; l += 32) {
      const auto x = adjoint ? conjugate(entry<T, P>(a, (long long)l * rows + i)) : entry<T, P>(a, i * inner + l);
      sum = sum + x * entry<T, P>(b, (long long)l * columns + j);
    }
    sum = of_warp_number<P>(sum);
    if (lane == 0)
      put(out, e, sum);
  }
}

// Threefry-2x32 with twenty rounds, as in _linalg/random.py.
__device__ inline void threefry(unsigned key0, unsigned key1, unsigned &x0, unsigned &x1) {
  const unsigned words[3] = {key0, key1, key0 ^ key1 ^ 0x1BD11BDAu};
  const int turns[8] = {13, 15, 26, 6, 17, 29, 16, 24};
  x0 += words[0];
  x1 += words[1];
  for (int step = 0; step < 20; ++step) {
    x0 += x1;
    x1 = (x1 << turns[step % 8]) | (x1 >> (32 - turns[step % 8]));
    x1 ^= x0;
    if (step % 4 == 3) {
      const int more = step / 4 + 1;
      x0 += words[more % 3];
      x1 += words[(more + 1) % 3] + more;
    }
  }
}

// Independent normal or uniform numbers of mean 0 and E|ω|² = 1 for matrices (rows, columns), entry (i, j) from counter
// (first_row + i, first_column + j) in the stream of the key, the purpose and the matrix. The key may be on the device.
template <typename T, int P>
__global__ void random_numbers(T *out, const int *key, int high, int low, int purpose, int normal, int first_row,
                               int first_column, int rows, int columns) {
  unsigned key0 = purpose, key1 = blockIdx.x;
  threefry(key ? key[0] : high, key ? key[1] : low, key0, key1);
  const long long size = (long long)rows * columns;
  out += blockIdx.x * size * P;
  for (long long e = (long long)blockIdx.y * blockDim.x + threadIdx.x; e < size; e += gridDim.y * blockDim.x) {
    unsigned x0 = first_row + (int)(e / columns), x1 = first_column + (int)(e % columns);
    threefry(key0, key1, x0, x1);
    // The upper 23 bits, in the middle of their interval; by G. E. P. Box and M. E. Muller (1958).
    const double u = ((x0 >> 9) + 0.5) / 8388608.0, v = ((x1 >> 9) + 0.5) / 8388608.0;
    const double radius = sqrt(-2.0 / P * log(u)), angle = 6.283185307179586 * v, wide = sqrt(12.0 / P);
    const double real = normal ? radius * cos(angle) : wide * (u - 0.5);
    if constexpr (P == 1)
      put(out, e, real);
    else
      put(out, e, Complex{real, normal ? radius * sin(angle) : wide * (v - 0.5)});
  }
}
