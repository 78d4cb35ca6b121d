// The core of a step of any rank: with W = [b, c, z, d] the step is I + W N Wᴴ, and N depends on WᴴW alone. z are
// the probes of healing, if any, and d = Uᴴ(Uz) − z.

// The columns of W in double precision, each scaled to a largest entry near 1 by a power of two. c and Uᴴ(Uz) are
// the columns of `pulled`, thin factors or the sums of `gather`; c is multiplied by `power`, if given. One block for
// every column.
template <typename T, int P, bool SUMS>
__global__ void __launch_bounds__(512)
    assemble(const T *pulled, const double *power, const T *right, const T *probes, typename Wide<P>::type *columns,
             int *exponents, int n, int k, int p) {
  using Number = typename Wide<P>::type;
  const int s = blockIdx.x, j = blockIdx.y;
  pulled += (long long)s * (k + p) * P * n * (SUMS ? P : 1);
  right += (long long)s * n * k * P;
  probes += (long long)s * n * p * P;
  columns += ((long long)s * gridDim.y + j) * n;
  double size[1] = {0};
  for (int m = threadIdx.x; m < n; m += blockDim.x) {
    const bool healing = j >= 2 * k, made = healing ? j >= 2 * k + p : j >= k;
    Number x = Wide<P>::real(0);
    if (made) {
      const int w = healing ? j - k - p : j - k;
      x = SUMS ? collected<T, P>(pulled, n, w, m) : entry<T, P>(pulled, (long long)m * (k + p) + w);
      if (power && !healing)
        x = power[s * k + w] * x;
    }
    if (healing) {
      const Number z = entry<T, P>(probes, (long long)m * p + (j - 2 * k) % p);
      x = made ? x - z : z;
    } else if (!made)
      x = entry<T, P>(right, (long long)m * k + j);
    columns[m] = x;
    size[0] = Largest::of(size[0], longest_part(x));
  }
  of_block<Largest>(size);
  const int exponent = exponent_of(size[0]);
  for (int m = threadIdx.x; m < n; m += blockDim.x)
    columns[m] = ldexp(1.0, -exponent) * columns[m];
  if (threadIdx.x == 0)
    exponents[s * gridDim.y + j] = exponent;
}

// G = WᴴW, by one block for every entry on or below the diagonal.
template <int P>
__global__ void __launch_bounds__(512) gram(const typename Wide<P>::type *columns, typename Wide<P>::type *G, int n) {
  const int s = blockIdx.x, i = blockIdx.y, j = blockIdx.z, width = gridDim.y;
  if (j > i)
    return;
  columns += (long long)s * width * n;
  G += (long long)s * width * width;
  const typename Wide<P>::type x = inner<P>(columns + (long long)i * n, columns + (long long)j * n, n);
  if (threadIdx.x == 0) {
    G[i * width + j] = x;
    G[j * width + i] = conjugate(x);
  }
}

// Small square matrices, row-major, shared by all threads of a block; every function ends with a barrier.

// out = scale · a b + plus, the last if it is there.
template <typename Number>
__device__ void multiply(Number *out, const Number *a, const Number *b, int m, double scale = 1,
                         const Number *plus = nullptr) {
  for (int e = threadIdx.x; e < m * m; e += blockDim.x) {
    Number sum = {};
    for (int l = 0; l < m; ++l)
      sum = sum + a[e / m * m + l] * b[l * m + e % m];
    sum = scale * sum;
    out[e] = plus ? sum + plus[e] : sum;
  }
  __syncthreads();
}

// Every entry from its row and column.
template <typename Number, typename F> __device__ void fill(Number *out, int m, F of) {
  for (int e = threadIdx.x; e < m * m; e += blockDim.x)
    out[e] = of(e / m, e % m);
  __syncthreads();
}

template <typename Number> __device__ double frobenius_norm(const Number *a, int m) {
  double sums[1] = {0};
  for (int e = threadIdx.x; e < m * m; e += blockDim.x)
    sums[0] += square(a[e]);
  of_block<Sum>(sums);
  return sqrt(sums[0]);
}

// The inverse by Gauss and Jordan with partial pivoting; room for 4 m² numbers. A singular matrix gives numbers
// that are not finite.
template <typename Number> __device__ void invert(Number *out, const Number *a, int m, Number *room) {
  Number *now = room, *next = room + 2 * m * m;
  for (int e = threadIdx.x; e < 2 * m * m; e += blockDim.x) {
    const int i = e / (2 * m), j = e % (2 * m);
    now[e] = j < m ? a[i * m + j] : i == j - m ? Number{1} : Number{};
  }
  __syncthreads();
  for (int p = 0; p < m; ++p) {
    int q = p;
    for (int i = p + 1; i < m; ++i)
      if (square(now[i * 2 * m + p]) > square(now[q * 2 * m + p]))
        q = i;
    const Number pivot = now[q * 2 * m + p];
    const Number inverse = (1 / square(pivot)) * conjugate(pivot);
    for (int e = threadIdx.x; e < 2 * m * m; e += blockDim.x) {
      const int i = e / (2 * m), j = e % (2 * m), from = i == q ? p : i;
      const Number along = inverse * now[q * 2 * m + j];
      next[e] = i == p ? along : now[from * 2 * m + j] - now[from * 2 * m + p] * along;
    }
    __syncthreads();
    Number *other = now;
    now = next;
    next = other;
  }
  fill(out, m, [=](int i, int j) { return now[i * 2 * m + m + j]; });
}

__device__ inline double not_a_number() { return __longlong_as_double(0x7ff8000000000000LL); }

// φ₁(A) = (e^A − 1)/A by scaling and squaring, storing X = e^A − I, as transport.phi1.
// A is overwritten; room for 3 m².
template <typename Number> __device__ void phi1(Number *out, Number *A, int m, Number *room) {
  const int squarings = 12, degree = 10;
  const double scale = 1.0 / (1 << squarings), wrong = scale * frobenius_norm(A, m) <= 0.23 ? 1 : not_a_number();
  Number *P = out, *Q = room, *X = room + m * m, *Y = X + m * m;
  fill(A, m, [=](int i, int j) { return (scale * wrong) * A[i * m + j]; });
  fill(P, m, [=](int i, int j) { return (1.0 / (degree + 1)) * A[i * m + j] + (i == j ? Number{1} : Number{}); });
  for (int l = degree; l > 1; --l) {
    multiply(Q, A, P, m, 1.0 / l);
    fill(P, m, [=](int i, int j) { return Q[i * m + j] + (i == j ? Number{1} : Number{}); });
  }
  multiply(X, A, P, m);
  for (int l = 0; l < squarings; ++l) {
    multiply(Q, X, P, m, 0.5, P);
    multiply(Y, X, X, m);
    fill(Y, m, [=](int i, int j) { return Y[i * m + j] + 2.0 * X[i * m + j]; });
    Number *other = P;
    P = Q;
    Q = other;
    other = X;
    X = Y;
    Y = other;
  }
  // After an even number of exchanges P is `out` again.
  static_assert(squarings % 2 == 0, "");
}

// A^½ by the product form of Denman and Beavers; NaN where it has not converged. A is overwritten; room for 7 m².
template <typename Number> __device__ void square_root(Number *out, Number *A, int m, Number *room) {
  Number *inverse = room, *product = room + m * m, *X = out;
  fill(X, m, [=](int i, int j) { return A[i * m + j]; });
  for (int l = 0; l < 10; ++l) {
    invert(inverse, A, m, room + 3 * m * m);
    multiply(product, X, inverse, m);
    fill(X, m, [=](int i, int j) { return 0.5 * (X[i * m + j] + product[i * m + j]); });
    fill(A, m, [=](int i, int j) {
      return 0.25 * (A[i * m + j] + inverse[i * m + j]) + (i == j ? 0.5 : 0.0) * Number{1};
    });
  }
  fill(product, m, [=](int i, int j) { return A[i * m + j] - (i == j ? Number{1} : Number{}); });
  const double wrong = square(frobenius_norm(product, m)) <= 2.220446049250313e-16 ? 1 : not_a_number();
  fill(X, m, [=](int i, int j) { return wrong * X[i * m + j]; });
}

// M for balanced K, by kind; room for 11 m².
template <typename Number> __device__ void middle(int kind, Number *M, const Number *K, int k, Number *room) {
  const int m = 2 * k, size = m * m;
  Number *A = room, *F = room + size, *rest = room + 2 * size;
  if (kind != POLAR) {
    // KJ = ½[K₁₂, −K₁₁; …].
    const double half = kind == CAYLEY ? -0.25 : 0.5;
    fill(A, m, [=](int i, int j) {
      const Number x = j < k ? half * K[i * m + j + k] : (-half) * K[i * m + j - k];
      return kind == CAYLEY && i == j ? x + Number{1} : x;
    });
    if (kind == CAYLEY)
      invert(F, A, m, rest);
    else
      phi1(F, A, m, rest);
    fill(M, m, [=](int i, int j) { return i < k ? -0.5 * F[(i + k) * m + j] : 0.5 * F[(i - k) * m + j]; });
    return;
  }
  // Z = [[cᴴc, I], [I, 0]]
  Number *Z = rest, *S = rest + size;
  rest = S + size;
  fill(Z, m, [=](int i, int j) {
    return i < k && j < k ? K[(i + k) * m + j + k] : i == j + k || j == i + k ? Number{1} : Number{};
  });
  multiply(A, K, Z, m);
  fill(A, m, [=](int i, int j) { return A[i * m + j] + (i == j ? Number{1} : Number{}); });
  square_root(S, A, m, rest);
  // Y = −Z (S + S²)⁻¹, M = E + Y + E K Y
  multiply(A, S, S, m, 1, S);
  invert(F, A, m, rest);
  multiply(A, Z, F, m, -1);
  multiply(F, K, A, m);
  fill(M, m, [=](int i, int j) {
    return i < k ? A[i * m + j] : A[i * m + j] + F[(i - k) * m + j] + (i == j + k ? Number{1} : Number{});
  });
}

// N and the scales of the columns of W that go with it, from G; room for 18 times what N takes.
//
// The columns of a pair are balanced to equal norms by powers of two, as only their product counts. N is NaN where
// the defect is above √eps.
template <int P>
__global__ void __launch_bounds__(256) core(typename Wide<P>::type *G, const int *exponents,
                                            typename Wide<P>::type *N, double *scales,
                                            typename Wide<P>::type *room, int k, int p, int kind) {
  using Number = typename Wide<P>::type;
  const int w = 2 * (k + p), m = 2 * k, size = w * w;
  G += (long long)blockIdx.x * size;
  exponents += blockIdx.x * w;
  N += (long long)blockIdx.x * size;
  scales += blockIdx.x * w;
  room += 18LL * blockIdx.x * size;
  for (int j = threadIdx.x; j < w; j += blockDim.x) {
    double scale = ldexp(1.0, exponents[j]);
    if (j < m) {
      const int other = j < k ? j + k : j - k;
      const double own = longest_part(G[j * w + j]), others = longest_part(G[other * w + other]);
      // A column whose partner is zero adds nothing; zero times NaN stays NaN.
      scale = 0;
      if (own > 0 && others > 0) {
        const double apart = 0.5 * (exponents[j] - exponents[other]) + 0.25 * (log2(own) - log2(others));
        // Rounded alike on both sides, so that the product of both scales is exact.
        const int back = j < k ? (int)rint(apart) : -(int)rint(-apart);
        scale = ldexp(1.0, exponents[j] - back);
      }
    }
    scales[j] = scale;
  }
  __syncthreads();
  fill(G, w, [=](int i, int j) { return scales[j] * (scales[i] * G[i * w + j]); });
  Number *K = room, *M = room + size, *X = room + 2 * size, *Y = room + 3 * size;
  fill(K, m, [=](int i, int j) { return G[i * w + j]; });
  middle(kind, M, K, k, room + 4 * size);
  // The defect of I + W M Wᴴ is W X Wᴴ with X = M + Mᴴ + MᴴKM, and ‖W X Wᴴ‖² = tr(X K X K).
  multiply(X, K, M, m);
  fill(Y, m, [=](int i, int j) {
    Number sum = M[i * m + j] + conjugate(M[j * m + i]);
    for (int l = 0; l < m; ++l)
      sum = sum + conjugate(M[l * m + i]) * X[l * m + j];
    return sum;
  });
  multiply(X, Y, K, m);
  double trace[P] = {};
  for (int e = threadIdx.x; e < m * m; e += blockDim.x) {
    double part[P];
    store(part, X[e] * X[e % m * m + e / m]);
    for (int i = 0; i < P; ++i)
      trace[i] += part[i];
  }
  of_block<Sum>(trace);
  const double wrong = absolute(number<P>(trace)) <= 2.220446049250313e-16 ? 1 : not_a_number();
  if (p == 0) {
    fill(N, m, [=](int i, int j) { return wrong * M[i * m + j]; });
    return;
  }
  // Healing comes first, I + W H Wᴴ with the correction ½[z(d − zS)ᴴ + dzᴴ], S = zᴴd, shortened.
  double squares = 0;
  for (int j = m + p; j < w; ++j)
    squares += longest_part(G[j * w + j]);
  const double shortened = -0.5 / sqrt(1 + squares);
  Number *H = room + 4 * size, *R = H + size, *HG = R + size;
  fill(R, w, [=](int i, int j) { return i < m && j < m ? wrong * M[i * m + j] : Number{}; });
  fill(H, w, [=](int i, int j) {
    if (i < m || j < m)
      return Number{};
    if (i < m + p && j < m + p)
      return (-shortened) * conjugate(G[j * w + i + p]);
    return i == j + p || j == i + p ? shortened * Number{1} : Number{};
  });
  // N = H + R + H G R
  multiply(HG, H, G, w);
  multiply(N, HG, R, w, 1, R);
  fill(N, w, [=](int i, int j) { return N[i * w + j] + H[i * w + j]; });
}

// L = W and R = W Nᴴ, as rows that move a matrix or as thin factors; blockIdx.z is the column.
template <typename T, int P, bool ROWS>
__global__ void spread(const typename Wide<P>::type *columns, const double *scales, const typename Wide<P>::type *N,
                       T *before, T *after, int n, int w) {
  using Number = typename Wide<P>::type;
  columns += (long long)blockIdx.x * w * n;
  scales += blockIdx.x * w;
  N += (long long)blockIdx.x * w * w;
  before += (long long)blockIdx.x * w * P * n * (ROWS ? P : 1);
  after += (long long)blockIdx.x * w * P * n * (ROWS ? P : 1);
  const int m = blockIdx.y * blockDim.x + threadIdx.x, j = blockIdx.z;
  if (m >= n)
    return;
  const Number x = scales[j] * columns[(long long)j * n + m];
  Number sum = {};
  for (int i = 0; i < w; ++i)
    sum = sum + conjugate(N[j * w + i]) * (scales[i] * columns[(long long)i * n + m]);
  if constexpr (ROWS) {
    lay(before, n, j, m, x);
    lay(after, n, j, m, sum);
  } else {
    put(before, (long long)m * w + j, x);
    put(after, (long long)m * w + j, sum);
  }
}
