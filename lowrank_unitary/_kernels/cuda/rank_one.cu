// Steps of rank one in closed form, one block for every matrix; the mathematics is that of cpu/rank_one.py.

enum { GEODESIC, CAYLEY, POLAR };

__device__ inline Complex quotient(Complex x, Complex y) {
  // Scaled by the larger part, so that no square overflows.
  if (fabs(y.re) >= fabs(y.im)) {
    const double r = y.im / y.re, d = y.re + y.im * r;
    return {(x.re + x.im * r) / d, (x.im - x.re * r) / d};
  }
  const double r = y.re / y.im, d = y.re * r + y.im;
  return {(x.re * r + x.im) / d, (x.im * r - x.re) / d};
}

// The 2×2 matrix f([[u, 0], [v, 0]]) − I, row by row, for the geodesic, Cayley or polar f.
__device__ inline void plane_change(int kind, Complex u, double v, Complex (&f)[4]) {
  if (kind == POLAR) {
    const Complex d = {1 + u.re, u.im};
    const double size = hypot(d.re, d.im), g = 1 + size, t = hypot(g, v), shorter = -v * (v / (t * (g + t)));
    // Singular: any e of modulus 1.
    Complex turn = {1, 0}, turned = {0, 0};
    if (size != 0) {
      turn = {d.re / size, d.im / size};
      turned = {turn.re - 1, turn.im};
      if (d.re > 0)
        turned = {-u.im * (u.im / (size * (d.re + size))), u.im / size};
    }
    f[0] = shorter * turn + turned;
    f[1] = (-v / t) * turn;
    f[2] = {v / t, 0};
    f[3] = {shorter, 0};
    return;
  }
  // Ω = i μ I + N with N = [[iμ, −v/2], [v/2, −iμ]] and N² = −ω² I.
  const double mu = 0.5 * u.im, half = 0.5 * v;
  if (kind == CAYLEY) {
    const Complex determinant = {1 + 0.25 * half * half, -mu}, corner = {1, -mu};
    f[0] = quotient({-0.5 * half * half, 2 * mu}, determinant);
    f[1] = quotient(Complex{0, 2 * mu} * Complex{-0.5 * half, 0} - half * corner, determinant);
    f[2] = quotient({half, 0}, determinant);
    f[3] = quotient({-0.5 * half * half, 0}, determinant);
    return;
  }
  const double omega = hypot(mu, half), sinc = omega > 0 ? sin(omega) / omega : 1;
  const double below = sin(0.5 * omega), side = sin(0.5 * mu);
  const Complex phase = {cos(mu), sin(mu)}, swing = phase * Complex{0, mu * sinc};
  const Complex less = {-2 * side * side * cos(omega) - 2 * below * below, sin(mu) * cos(omega)};
  f[0] = less + swing;
  f[1] = (-half * sinc) * phase;
  f[2] = (half * sinc) * phase;
  f[3] = less - swing;
}

// Σ conj(x) y over the entries of two columns, for every thread.
template <int P> __device__ typename Wide<P>::type inner(const typename Wide<P>::type *x,
                                                         const typename Wide<P>::type *y, int n) {
  double sums[P] = {};
  for (int m = threadIdx.x; m < n; m += blockDim.x) {
    double part[P];
    store(part, conjugate(x[m]) * y[m]);
    for (int i = 0; i < P; ++i)
      sums[i] += part[i];
  }
  of_block<Sum>(sums);
  return number<P>(sums);
}

template <int P> __device__ double norm(const typename Wide<P>::type *x, int n) {
  double sums[1] = {0};
  for (int m = threadIdx.x; m < n; m += blockDim.x)
    sums[0] += square(x[m]);
  of_block<Sum>(sums);
  return sqrt(sums[0]);
}

// Rows that move a matrix, from c = Uᴴ·left and b = right, and with healing the probe z and d = Uᴴ(Uz) − z.
//
// columns: b, c, z, d, of n numbers each; b and c are overwritten. The correction of the defect along z comes
// first, (I + H₁H₂ᴴ)(I + LRᴴ). A thread owns the same entries throughout, so that only sums need a barrier.
template <typename T, int P>
__device__ void turn_plane(typename Wide<P>::type *columns, bool healing, int kind, T *before, T *after, int n) {
  using Number = typename Wide<P>::type;
  Number *b = columns, *c = b + n, *z = c + n, *d = z + n;
  // Squares of what is scaled to a largest entry near 1 stay in range.
  double sizes[2] = {0, 0};
  for (int m = threadIdx.x; m < n; m += blockDim.x) {
    sizes[0] = Largest::of(sizes[0], longest_part(b[m]));
    sizes[1] = Largest::of(sizes[1], longest_part(c[m]));
  }
  of_block<Largest>(sizes);
  const int b_exponent = exponent_of(sizes[0]), c_exponent = exponent_of(sizes[1]);
  double squares[2] = {0, 0};
  for (int m = threadIdx.x; m < n; m += blockDim.x) {
    b[m] = ldexp(1.0, -b_exponent) * b[m];
    c[m] = ldexp(1.0, -c_exponent) * c[m];
    squares[0] += square(b[m]);
    squares[1] += square(c[m]);
  }
  of_block<Sum>(squares);
  const double beta = sqrt(squares[0]), size = sqrt(squares[1]);
  Complex f[4] = {};
  // Zero times NaN is not zero.
  const bool still = (beta == 0 && size == size) || (size == 0 && beta == beta);
  if (!still) {
    for (int m = threadIdx.x; m < n; m += blockDim.x)
      b[m] = (1 / beta) * b[m];
    Number along = Wide<P>::real(0);
    for (int pass = 0; pass < 2; ++pass) {
      const Number more = inner<P>(b, c, n);
      along = along + more;
      for (int m = threadIdx.x; m < n; m += blockDim.x)
        c[m] = c[m] - more * b[m];
    }
    double across = norm<P>(c, n);
    if (across > 0) {
      for (int m = threadIdx.x; m < n; m += blockDim.x)
        c[m] = (1 / across) * c[m];
      // For collinear columns rounding remains, which is orthogonalised again.
      for (int pass = 0; pass < 4; ++pass) {
        const Number more = inner<P>(b, c, n);
        if (square(more) <= 1e-28)
          break;
        for (int m = threadIdx.x; m < n; m += blockDim.x)
          c[m] = c[m] - more * b[m];
        const double rest = norm<P>(c, n);
        const double longer = rest <= 1e-3 ? 0 : 1 / rest;
        for (int m = threadIdx.x; m < n; m += blockDim.x)
          c[m] = longer * c[m];
        if (rest <= 1e-3) {
          across = 0;
          break;
        }
      }
    }
    // One by one: their product may overflow where the step does not.
    const double first = ldexp(1.0, b_exponent), second = ldexp(1.0, c_exponent);
    plane_change(kind, second * (first * (beta * as_complex(along))), second * (first * (beta * across)), f);
  }
  const Number f11 = Wide<P>::of(f[0]), f12 = Wide<P>::of(f[1]), f21 = Wide<P>::of(f[2]), f22 = Wide<P>::of(f[3]);
  double shortened = 0;
  Number inside = Wide<P>::real(0), along[2] = {inside, inside}, across[2] = {inside, inside};
  if (healing) {
    double sums[5 * P + 1] = {};
    for (int m = threadIdx.x; m < n; m += blockDim.x) {
      const Number products[5] = {conjugate(z[m]) * d[m], conjugate(z[m]) * b[m], conjugate(z[m]) * c[m],
                                  conjugate(d[m]) * b[m], conjugate(d[m]) * c[m]};
      for (int i = 0; i < 5; ++i) {
        double part[P];
        store(part, products[i]);
        for (int j = 0; j < P; ++j)
          sums[P * i + j] += part[j];
      }
      sums[5 * P] += square(d[m]);
    }
    of_block<Sum>(sums);
    shortened = -0.5 / sqrt(1 + sums[5 * P]);
    inside = number<P>(sums);
    for (int j = 0; j < 2; ++j) {
      const Number of_probe = number<P>(sums + P * (1 + j)), of_defect = number<P>(sums + P * (3 + j));
      along[j] = shortened * (of_defect - conjugate(inside) * of_probe);
      across[j] = shortened * of_probe;
    }
  }
  const int place = healing ? 2 : 0;
  for (int m = threadIdx.x; m < n; m += blockDim.x) {
    const Number x = still ? Wide<P>::real(0) : b[m], y = still ? Wide<P>::real(0) : c[m];
    Number first = x, second = y;
    if (healing) {
      lay(before, n, 0, m, z[m]);
      lay(before, n, 1, m, d[m]);
      lay(after, n, 0, m, shortened * (d[m] - inside * z[m]));
      lay(after, n, 1, m, shortened * z[m]);
      if (!still) {
        first = first + z[m] * along[0] + d[m] * across[0];
        second = second + z[m] * along[1] + d[m] * across[1];
      }
    }
    lay(before, n, place, m, first);
    lay(before, n, place + 1, m, second);
    lay(after, n, place, m, conjugate(f11) * x + conjugate(f12) * y);
    lay(after, n, place + 1, m, conjugate(f21) * x + conjugate(f22) * y);
  }
}

// The rows from the sums of `gather` with the scaled left column, then the probe.
template <typename T, int P>
__global__ void __launch_bounds__(512)
    turn(const T *total, const double *power, const T *right, const T *probe, typename Wide<P>::type *columns,
         T *before, T *after, int n, int healing, int kind) {
  using Number = typename Wide<P>::type;
  const int s = blockIdx.x, width = 1 + healing;
  total += (long long)s * width * P * n * P;
  right += (long long)s * n * P;
  probe += (long long)s * n * P;
  columns += 4LL * s * n;
  for (int m = threadIdx.x; m < n; m += blockDim.x) {
    columns[m] = entry<T, P>(right, m);
    columns[n + m] = power[s] * collected<T, P>(total, n, 0, m);
    if (healing) {
      const Number z = entry<T, P>(probe, m);
      columns[2 * n + m] = z;
      columns[3 * n + m] = collected<T, P>(total, n, 1, m) - z;
    }
  }
  const long long place = 2LL * s * width * P * n * P;
  turn_plane<T, P>(columns, healing, kind, before + place, after + place, n);
}

// Whole steps of small matrices, one block each: the matrix stays in the cache for the second traversal.
template <typename T, int P>
__global__ void __launch_bounds__(256)
    step_small(const T *source, T *target, const T *left, const T *right, const T *probe,
               typename Wide<P>::type *columns, T *before, T *after, int n, int healing, int kind) {
  using Number = typename Wide<P>::type;
  const int s = blockIdx.x, lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  source += (long long)s * n * n * P;
  target += (long long)s * n * n * P;
  left += (long long)s * n * P;
  right += (long long)s * n * P;
  probe += (long long)s * n * P;
  columns += 4LL * s * n;
  const int width = 2 * (1 + healing) * P;
  before += (long long)s * width * n * P;
  after += (long long)s * width * n * P;
  Number *b = columns, *c = b + n, *z = c + n, *d = z + n;
  double size[1] = {0};
  for (int m = threadIdx.x; m < n; m += blockDim.x)
    size[0] = Largest::of(size[0], longest_part(entry<T, P>(left, m)));
  of_block<Largest>(size);
  const double power = ldexp(1.0, exponent_of(size[0])), inverse = ldexp(1.0, -exponent_of(size[0]));
  // d holds the products of the rows with the probe until they are used as weights.
  if (healing)
    for (int i = warp; i < n; i += warps) {
      Number sum = Wide<P>::real(0);
      for (int m = lane; m < n; m += 32)
        sum = sum + entry<T, P>(source, (long long)i * n + m) * entry<T, P>(probe, m);
      double parts[P];
      store(parts, sum);
      for (int j = 0; j < P; ++j)
        parts[j] = of_warp<Sum>(parts[j]);
      if (lane == 0)
        d[i] = number<P>(parts);
    }
  __syncthreads();
  // As many threads as fit take every m-th row each; z holds their sums.
  __shared__ Number found[2][256];
  const int wide = (n + 31) / 32 * 32, groups = wide < (int)blockDim.x ? blockDim.x / wide : 1;
  for (int start = 0; start < n; start += blockDim.x) {
    const int group = threadIdx.x / wide, m = groups == 1 ? start + threadIdx.x : threadIdx.x % wide;
    Number sums[2] = {Wide<P>::real(0), Wide<P>::real(0)};
    if (m < n && group < groups)
      for (int i = group; i < n; i += groups) {
        const Number u = conjugate(entry<T, P>(source, (long long)i * n + m));
        sums[0] = sums[0] + u * (inverse * entry<T, P>(left, i));
        if (healing)
          sums[1] = sums[1] + u * d[i];
      }
    found[0][threadIdx.x] = sums[0];
    found[1][threadIdx.x] = sums[1];
    __syncthreads();
    if (m < n && group == 0) {
      for (int g = 1; g < groups; ++g) {
        sums[0] = sums[0] + found[0][threadIdx.x + g * wide];
        sums[1] = sums[1] + found[1][threadIdx.x + g * wide];
      }
      c[m] = power * sums[0];
      z[m] = sums[1];
    }
  }
  for (int m = threadIdx.x; m < n; m += blockDim.x) {
    b[m] = entry<T, P>(right, m);
    if (healing) {
      const Number x = entry<T, P>(probe, m);
      d[m] = z[m] - x;
      z[m] = x;
    }
  }
  turn_plane<T, P>(columns, healing, kind, before, after, n);
  __syncthreads();
  for (int i = warp; i < n; i += warps) {
    const T *row = source + (long long)i * n * P;
    T dots[4 * P];
    for (int w = 0; w < 4 * P; ++w) {
      dots[w] = 0;
      if (w < width)
        for (int m = lane; m < n * P; m += 32)
          dots[w] += row[m] * before[(long long)w * n * P + m];
      dots[w] = of_warp<Sum>(dots[w]);
    }
    for (int m = lane; m < n * P; m += 32) {
      T change = 0;
      for (int w = 0; w < 4 * P; ++w)
        if (w < width)
          change += dots[w] * after[(long long)w * n * P + m];
      target[(long long)i * n * P + m] = row[m] + change;
    }
  }
}
