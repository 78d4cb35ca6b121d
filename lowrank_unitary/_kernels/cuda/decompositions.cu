// Orthonormal bases of thin factors and eigenvectors of small matrices, one block for every matrix, without the
// synchronisation of general libraries.

// Orthogonalise a column against those before it; every warp computes some of the products.
template <int P>
__device__ void take_out(typename Wide<P>::type *column, const typename Wide<P>::type *columns, int before, int n,
                         typename Wide<P>::type *products) {
  using Number = typename Wide<P>::type;
  const int lane = threadIdx.x % 32, warps = blockDim.x / 32;
  for (int i = threadIdx.x / 32; i < before; i += warps) {
    Number sum = Wide<P>::real(0);
    for (int m = lane; m < n; m += 32)
      sum = sum + conjugate(columns[(long long)i * n + m]) * column[m];
    sum = of_warp_number<P>(sum);
    if (lane == 0)
      products[i] = sum;
  }
  __syncthreads();
  for (int m = threadIdx.x; m < n; m += blockDim.x) {
    Number sum = column[m];
    for (int i = 0; i < before; ++i)
      sum = sum - products[i] * columns[(long long)i * n + m];
    column[m] = sum;
  }
}

// Orthonormal columns, the first j of which span the first j of x, by Gram and Schmidt, repeated where digits
// cancel; a unit vector replaces a dependent column. width ≤ n. Room for `width` columns and `width` numbers. A
// matrix with a number that is not finite gives NaN.
template <typename T, int P>
__global__ void __launch_bounds__(512)
    orthonormalise(const T *x, T *out, typename Wide<P>::type *columns, typename Wide<P>::type *products, int n,
                   int width) {
  using Number = typename Wide<P>::type;
  x += (long long)blockIdx.x * n * width * P;
  out += (long long)blockIdx.x * n * width * P;
  columns += (long long)blockIdx.x * n * width;
  products += blockIdx.x * width;
  double size[1] = {0}, wrong[1] = {0};
  for (int e = threadIdx.x; e < n * width * P; e += blockDim.x) {
    size[0] = Largest::of(size[0], longest_part(double(x[e])));
    wrong[0] += 0 * double(x[e]);
  }
  of_block<Largest>(size);
  of_block<Sum>(wrong);
  const double inverse = ldexp(1.0, -exponent_of(size[0])) + wrong[0];
  for (int j = 0; j < width; ++j) {
    Number *column = columns + (long long)j * n;
    for (int m = threadIdx.x; m < n; m += blockDim.x)
      column[m] = inverse * entry<T, P>(x, (long long)m * width + j);
    double whole = norm<P>(column, n), left = whole;
    // The next unit vector to try.
    int other = j;
    for (int pass = 0;; ++pass) {
      const double before = left;
      __syncthreads();
      take_out<P>(column, columns, j, n, products);
      left = norm<P>(column, n);
      // Twice is enough, unless nearly all cancels. NaN passes here.
      if (!(left < 0.7 * before) && !(whole == 0))
        break;
      if (left > 1e-15 * sqrt(double(n)) * whole)
        continue;
      for (int m = threadIdx.x; m < n; m += blockDim.x)
        column[m] = Wide<P>::real(m == other % n ? 1 : 0);
      ++other;
      whole = left = 1;
    }
    for (int m = threadIdx.x; m < n; m += blockDim.x) {
      column[m] = (1 / left) * column[m];
      put(out, (long long)m * width + j, column[m]);
    }
  }
}

// Eigenvalues in ascending order and eigenvectors of Hermitian matrices by Jacobi rotations, m/2 pairs of columns
// at once. Room for 2 m² + m numbers. A matrix with a number that is not finite gives NaN.
template <typename T, int P>
__global__ void __launch_bounds__(256)
    hermitian_eigen(const T *matrix, T *values, T *vectors, typename Wide<P>::type *room, int m) {
  using Number = typename Wide<P>::type;
  matrix += (long long)blockIdx.x * m * m * P;
  values += blockIdx.x * m;
  vectors += (long long)blockIdx.x * m * m * P;
  room += (2LL * m * m + m) * blockIdx.x;
  Number *A = room, *V = A + m * m, *phases = V + m * m;
  // Sine, and tangent of half the angle, of the pair of an index: in this form (H. Rutishauser) products of many
  // rotations stay orthogonal.
  __shared__ double sines[160], halves[160];
  double size[1] = {0}, wrong[1] = {0};
  for (int e = threadIdx.x; e < m * m; e += blockDim.x) {
    const Number x = entry<T, P>(matrix, e);
    size[0] = Largest::of(size[0], longest_part(x));
    wrong[0] += 0 * square(x);
  }
  of_block<Largest>(size);
  of_block<Sum>(wrong);
  const int exponent = exponent_of(size[0]);
  fill(A, m, [=](int i, int j) {
    return (0.5 * ldexp(1.0, -exponent)) * (entry<T, P>(matrix, i * m + j) + conjugate(entry<T, P>(matrix, j * m + i)));
  });
  fill(V, m, [=](int i, int j) { return Wide<P>::real(i == j); });
  const int even = m + m % 2;
  // Entries of this size relative to the diagonal are rounding: without the bound the iteration would not end.
  const double enough = 2.2e-16 * sqrt(double(m));
  for (int sweep = 0; sweep < 20; ++sweep) {
    double squares[2] = {0, 0};
    for (int e = threadIdx.x; e < m * m; e += blockDim.x)
      squares[e / m == e % m] += square(A[e]);
    of_block<Sum>(squares);
    if (!(squares[0] > square(enough * sqrt(double(m))) * squares[1]))
      break;
    for (int round = 0; round < even - 1; ++round) {
      // Round-robin order: the last index is fixed, the others rotate.
      const auto partner = [=](int i) {
        if (i == even - 1)
          return round;
        return i == round ? even - 1 : (2 * round - i + 2 * (even - 1)) % (even - 1);
      };
      for (int p = threadIdx.x; p < m; p += blockDim.x) {
        const int q = partner(p);
        if (q < p)
          continue;
        double half = 0, sine = 0;
        Number phase = Wide<P>::real(1);
        if (q < m) {
          const double r = absolute(A[p * m + q]), x = real_part(A[p * m + p]), y = real_part(A[q * m + q]);
          // The last may be so small next to entries near 1 that its inverse overflows.
          if (r > enough * sqrt(fabs(x * y)) && r > 1e-200) {
            const double tau = (y - x) / (2 * r);
            const double t = (tau < 0 ? -1 : 1) / (fabs(tau) + sqrt(1 + tau * tau));
            const double cosine = 1 / sqrt(1 + t * t);
            sine = t * cosine;
            half = sine / (1 + cosine);
            phase = conjugate(A[p * m + q]) / r;
          }
        }
        sines[p] = sine;
        halves[p] = half;
        phases[p] = phase;
      }
      __syncthreads();
      // Columns p and q become c p − s z q and s p + c z q.
      for (int e = threadIdx.x; e < 2 * m * m; e += blockDim.x) {
        const int p = e % m, q = partner(p);
        if (q < p || q >= m)
          continue;
        Number *row = A + e / m * m;
        const Number x = row[p], y = phases[p] * row[q];
        row[p] = x - sines[p] * (y + halves[p] * x);
        row[q] = y + sines[p] * (x - halves[p] * y);
      }
      __syncthreads();
      for (int e = threadIdx.x; e < m * m; e += blockDim.x) {
        const int p = e / m, q = partner(p), j = e % m;
        if (q < p || q >= m)
          continue;
        const Number x = A[p * m + j], y = conjugate(phases[p]) * A[q * m + j];
        A[p * m + j] = x - sines[p] * (y + halves[p] * x);
        A[q * m + j] = y + sines[p] * (x - halves[p] * y);
      }
      __syncthreads();
    }
  }
  for (int i = threadIdx.x; i < m; i += blockDim.x) {
    const double value = real_part(A[i * m + i]);
    int place = 0;
    for (int j = 0; j < m; ++j) {
      const double other = real_part(A[j * m + j]);
      place += other < value || (other == value && j < i);
    }
    // For NaN all places are filled.
    if (wrong[0] != 0)
      place = i;
    values[place] = T(ldexp(value, exponent) + wrong[0]);
    for (int j = 0; j < m; ++j)
      put(vectors, (long long)j * m + place, V[j * m + i] + Wide<P>::real(wrong[0]));
  }
}
