// Haar-distributed orthogonal matrices: Q = H_0 H_1 ... H_{k-1} D E of Householder reflections of Gaussian vectors, as
// io.jtrelu.backend.Orthogonal defines it.
//
// Reflections are taken in blocks of 64: I - V T V^T, with V lower trapezoidal and T^-1 = diag(v_j^T v_j / 2) + the
// strict upper triangle of V^T V (compact WY form; Puglisi 1992 for the inverse). A panel of 64 columns of Q begins as
// columns of D and passes through the blocks from its own one down to block 0; it and the blocks lie densely in working
// memory, whatever the matrix's leading dimension. What is known to be zero is left out: a panel is zero above the rows
// of the last block that it passed, and below those of its own block before that one.
//
// V lies by coordinates, [coordinate][reflection]: that is how random numbers come out where a vector's lanes are
// reflections, and what both products read in sequence. Vectors hold columns of the result, sums run over rows, 64 at a
// time: their order does not depend on the width of vectors.
#include "vectors.h"

#include <algorithm>
#include <cmath>

namespace {
namespace orthogonal {

constexpr int kBlock = 64;  // reflections of a block; columns of a panel; rows in a partial sum
constexpr int kRows = 4;  // of a register tile
constexpr int kGroup = 16;  // widths are filled up to multiples of it with zeros

constexpr int64_t filled(int64_t count, int64_t multiple) { return (count + multiple - 1) / multiple * multiple; }

// Sizes of the problem, and where things lie. Rows are filled up to multiples of kRows with zeros.
struct Sizes {
  int64_t m, k, rows;

  Sizes(int64_t longer, int64_t shorter) : m(longer), k(shorter), rows(filled(longer, kRows)) {}
  int64_t first(int64_t block) const { return block * kBlock; }
  int64_t width(int64_t block) const { return filled(std::min<int64_t>(kBlock, k - first(block)), kGroup); }
  int64_t length(int64_t block) const { return rows - first(block); }
  /// V [length][width] and then -T [width][width]; all blocks but the last have the full width.
  int64_t offset(int64_t block) const {
    return kBlock * (block * (rows + kBlock) - kBlock * (block * (block - 1) / 2));
  }
  int64_t blocks() const { return (k + kBlock - 1) / kBlock; }
  int64_t reflections() const {
    const int64_t last = blocks() - 1;
    return offset(last) + (length(last) + width(last)) * width(last);
  }
  int64_t panel() const { return (rows + 2 * kBlock) * kBlock; }
};

// Random numbers: the lanes of a vector are reflections.
constexpr int kDraw = LANES / 2;
typedef float Singles __attribute__((vector_size(4 * kDraw)));
typedef float UnalignedSingles __attribute__((vector_size(4 * kDraw), aligned(4), may_alias));
typedef int32_t Ints __attribute__((vector_size(4 * kDraw)));
typedef double Doubles __attribute__((vector_size(8 * kDraw)));
typedef double AliasingDoubles __attribute__((vector_size(8 * kDraw), may_alias));
typedef uint64_t Longs __attribute__((vector_size(8 * kDraw)));

INLINE Doubles widened(Singles v) { return __builtin_convertvector(v, Doubles); }
INLINE Singles rounded(Doubles v) { return __builtin_convertvector(v, Singles); }

// All lanes are asked for by masks because GCC 12 warns of the forms without.

/// Products of the lower 32 bits of each lane.
INLINE Longs product(Longs a, uint32_t b) {
#if LANES == 16
  return Longs(_mm512_maskz_mul_epu32(0xff, __m512i(a), _mm512_set1_epi64(b)));
#elif LANES == 8
  return Longs(_mm256_mul_epu32(__m256i(a), _mm256_set1_epi64x(b)));
#else
  return (a & 0xffffffff) * uint64_t(b);
#endif
}

/// A block of Philox4x32-10 (Salmon et al. 2011) in each lane. The upper 32 bits of words and counters mean nothing.
INLINE void philox(uint64_t seed, Longs c[4]) {
  uint32_t k0 = uint32_t(seed), k1 = uint32_t(seed >> 32);
#pragma GCC unroll 10
  for (int round = 0; round < 10; round++) {
    const Longs p0 = product(c[0], 0xD2511F53), p1 = product(c[2], 0xCD9E8D57);
    c[0] = p1 >> 32 ^ c[1] ^ uint64_t(k0);
    c[1] = p1;
    c[2] = p0 >> 32 ^ c[3] ^ uint64_t(k1);
    c[3] = p0;
    k0 += 0x9E3779B9;
    k1 += 0xBB67AE85;
  }
}

/// (top 24 of 32 bits + 1/2, rounded to binary32) / 2^24, in (0, 1].
INLINE Doubles uniform(Longs word) {
  const Longs integer = (word & 0xffffffff) >> 8 | 0x4330000000000000;  // 2^52 + the bits
  return widened(rounded(Doubles(integer) - (0x1p52 - 0.5))) * 0x1p-24;
}

INLINE Doubles squareRoot(Doubles v) {
#if LANES == 16
  return Doubles(_mm512_maskz_sqrt_pd(0xff, __m512d(v)));
#elif LANES == 8
  return Doubles(_mm256_sqrt_pd(__m256d(v)));
#else
  for (int i = 0; i < kDraw; i++) v[i] = std::sqrt(v[i]);
  return v;
#endif
}

/// ln u for normal u > 0: u = 2^e m with m in [sqrt(1/2), sqrt(2)), ln m = 2 artanh s with s = (m - 1) / (m + 1), of
/// which the series' first term left out is below 1e-15 s.
INLINE Doubles logarithm(Doubles u) {
  constexpr uint64_t kHalfRoot = 0x3fe6a09e667f3bcd, kOne = 0x3ff0000000000000;
  const Longs bits = Longs(u) + (kOne - kHalfRoot);
  const Doubles e = Doubles(bits >> 52 | 0x4330000000000000) - (0x1p52 + 1023);
  const Doubles m = Doubles((bits & 0x000fffffffffffff) + kHalfRoot);
  const Doubles s = (m - 1) / (m + 1);
  const Doubles z = s * s;
  Doubles series = z * (1. / 17) + 1. / 15;
  series = series * z + 1. / 13;
  series = series * z + 1. / 11;
  series = series * z + 1. / 9;
  series = series * z + 1. / 7;
  series = series * z + 1. / 5;
  series = series * z + 1. / 3;
  return e * 0.693147180559945309417 + (series * z * s + s) * 2;
}

/// Two words as a standard normal pair by Box and Muller: sqrt(-2 ln u0) times cosine and sine of 2 pi u1, where 2 pi is
/// the nearest binary64, as in the definition: so a cosine of nearly 0 has the sign that it has there. The angle is taken
/// from the nearest quarter turn; the series are those of Taylor, to 1e-15.
INLINE void normals(Longs word0, Longs word1, Singles* first, Singles* second) {
  const Doubles radius = squareRoot(logarithm(uniform(word0)) * -2);
  const Doubles u = uniform(word1);
  constexpr double kRound = 0x1.8p52;
  const Doubles shifted = u * 4 + kRound;
  const Longs quarter = Longs(shifted);  // its lowest bits
  const Doubles x = (u * 4 - (shifted - kRound)) * 1.57079632679489661923 - u * 2.4492935982947064e-16;
  const Doubles z = x * x;
  Doubles sine = z * (-1 / 1307674368000.) + 1 / 6227020800.;
  Doubles cosine = z * (-1 / 87178291200.) + 1 / 479001600.;
  sine = sine * z - 1 / 39916800.;
  cosine = cosine * z - 1 / 3628800.;
  sine = sine * z + 1 / 362880.;
  cosine = cosine * z + 1 / 40320.;
  sine = sine * z - 1 / 5040.;
  cosine = cosine * z - 1 / 720.;
  sine = sine * z + 1 / 120.;
  cosine = cosine * z + 1 / 24.;
  sine = sine * z - 1 / 6.;
  cosine = cosine * z - 1 / 2.;
  sine = sine * z * x + x;
  cosine = cosine * z + 1;
  const Longs odd = 0 - (quarter & 1);
  const Longs c = (odd & Longs(sine)) | (~odd & Longs(cosine));
  const Longs s = (odd & Longs(cosine)) | (~odd & Longs(sine));
  *first = rounded(radius * Doubles(c ^ ((quarter + 1) & 2) << 62));
  *second = rounded(radius * Doubles(s ^ (quarter & 2) << 62));
}

/// Gaussian vectors as columns of v [rows][width], reflection j from row j on, zeros elsewhere; and the squares of their
/// lengths. Rows and the length of a stream go in steps of four, but out of step by j: a row takes what belongs to it
/// from the numbers of this step and the last.
void gaussian(uint64_t seed, uint64_t sequence, int count, int64_t length, int64_t rows, int64_t width, float* v,
              double* squares) {
  constexpr int kGroups = kBlock / kDraw;
  struct Group {
    Singles last[4];
    Doubles squares;
    Longs low, high, block;  // of the streams; the block of numbers that the step begins with
    Ints from;  // first row of each reflection
  } groups[kGroups];
  const int used = int(width / kDraw);
  for (int g = 0; g < used; g++) {
    Group& group = groups[g];
    for (int lane = 0; lane < kDraw; lane++) {
      const int j = g * kDraw + lane;
      group.low[lane] = sequence + uint64_t(j);
      group.high[lane] = (sequence + uint64_t(j)) >> 32;
      group.block[lane] = uint64_t(0) - uint64_t(j / 4);
      group.from[lane] = j < count ? j : INT32_MAX;
    }
    group.squares = Doubles{};
    for (Singles& last : group.last) last = Singles{};
  }
  Ints lanes;
  for (int lane = 0; lane < kDraw; lane++) lanes[lane] = lane % 4;
  for (int64_t row = 0; row < rows; row += 4) {
    for (int g = 0; g < used; g++) {
      Group& group = groups[g];
      const Ints place = lanes + g * kDraw % 4;  // j modulo 4
      float* to = v + row * width + g * kDraw;
      if (row + 3 < g * kDraw) {
        for (int q = 0; q < 4; q++) *reinterpret_cast<UnalignedSingles*>(to + q * width) = Singles{};
        continue;
      }
      Longs words[4] = {group.block + uint64_t(row / 4), Longs{}, group.low, group.high};
      philox(seed, words);
      Singles x[8];
      for (int i = 0; i < 4; i++) x[i] = group.last[i];
      normals(words[0], words[1], &x[4], &x[5]);
      normals(words[2], words[3], &x[6], &x[7]);
      for (int i = 0; i < 4; i++) group.last[i] = x[4 + i];
#pragma GCC unroll 4
      for (int q = 0; q < 4; q++) {
        Singles number = x[4 + q];  // number row + q - j of stream j
        number = place == 1 ? x[3 + q] : number;
        number = place == 2 ? x[2 + q] : number;
        number = place == 3 ? x[1 + q] : number;
        const Ints inside = row + q < length ? group.from <= int32_t(row + q) : Ints{};
        number = Singles(Ints(number) & inside);
        const Doubles wide = widened(number);
        group.squares += wide * wide;
        *reinterpret_cast<UnalignedSingles*>(to + q * width) = number;
      }
    }
  }
  for (int g = 0; g < used; g++) {
    for (int lane = 0; lane < kDraw; lane++) squares[g * kDraw + lane] = groups[g].squares[lane];
  }
}

// Products of matrices.

#if LANES == 8
constexpr int kVectors = 2;  // of a register tile's row
#else
constexpr int kVectors = 4;
#endif

/// An operand whose element of row r in the result and term t of the sum is at[r * row + t * term].
struct Left {
  const float* at;
  int64_t row, term;
};

/// kRows rows by N vectors of c (+)= the sum over terms [from, to) of a b.
template <int N>
INLINE void tile(Left a, const float* b, int64_t bStride, float* c, int64_t cStride, int64_t from, int64_t to,
                 bool add) {
  Vector sums[kRows][N] = {};
  const float* left = a.at + from * a.term;
  const float* right = b + from * bStride;
  for (int64_t t = from; t < to; t++, left += a.term, right += bStride) {
    Vector terms[N];
#pragma GCC unroll 4
    for (int n = 0; n < N; n++) terms[n] = load(right + n * LANES);
#pragma GCC unroll 4
    for (int r = 0; r < kRows; r++) {
      const float factor = left[r * a.row];
#pragma GCC unroll 4
      for (int n = 0; n < N; n++) sums[r][n] += factor * terms[n];
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < kRows; r++) {
#pragma GCC unroll 4
    for (int n = 0; n < N; n++) {
      float* at = c + r * cStride + n * LANES;
      store(at, add ? load(at) + sums[r][n] : sums[r][n]);
    }
  }
}

template <int N>
void tiles(Left a, const float* b, int64_t bStride, float* c, int64_t cStride, int64_t from, int64_t to, bool add) {
  if (a.term == 1) {  // lets the compiler count on it
    a.term = 1;
    tile<N>(a, b, bStride, c, cStride, from, to, add);
  } else {
    a.row = 1;
    tile<N>(a, b, bStride, c, cStride, from, to, add);
  }
}

/// kRows rows of c, columns [0, columns), a multiple of kGroup.
INLINE void rowsOf(Left a, const float* b, int64_t bStride, float* c, int64_t cStride, int64_t columns, int64_t from,
                   int64_t to, bool add) {
  int64_t left = columns / LANES;
#if LANES == 16
  if (left == 4) return tiles<4>(a, b, bStride, c, cStride, from, to, add);
  if (left == 3) return tiles<3>(a, b, bStride, c, cStride, from, to, add);
  if (left == 2) return tiles<2>(a, b, bStride, c, cStride, from, to, add);
  tiles<1>(a, b, bStride, c, cStride, from, to, add);
#else
  for (; left > 0; left -= kVectors, b += kVectors * LANES, c += kVectors * LANES) {
    tiles<kVectors>(a, b, bStride, c, cStride, from, to, add);
  }
#endif
}

/// -T of a block in binary64, by kGroup rows from the last. With G = V^T V, of which the blocks above the diagonal are
/// read, and T_aa the inverses of T^-1's diagonal blocks, T_ab = -T_aa (sum over c > a of G_ac T_cb).
void invert(const float* gram, const double* halves, int64_t width, float* t) {
  alignas(64) double inverse[kBlock][kBlock];  // -T; of the block row in hand first the sums
  alignas(64) double factors[kGroup][kBlock];
  const auto at = [](double* p) -> AliasingDoubles& { return *reinterpret_cast<AliasingDoubles*>(p); };
  for (int64_t a = width - kGroup; a >= 0; a -= kGroup) {
    const int64_t next = a + kGroup;
    for (int64_t row = 0; row < kGroup; row++) {
      for (int64_t j = 0; j < width; j += kDraw) {
        at(factors[row] + j) = widened(*reinterpret_cast<const UnalignedSingles*>(gram + (a + row) * width + j));
      }
    }
    for (int64_t row = 0; row < kGroup; row += kRows) {
      for (int64_t col = next; col < width; col += kDraw) {
        Doubles sums[kRows] = {};
        for (int64_t j = next; j < col + kDraw; j++) {
          for (int r = 0; r < kRows; r++) sums[r] += factors[row + r][j] * at(inverse[j] + col);
        }
        for (int r = 0; r < kRows; r++) at(inverse[a + row + r] + col) = sums[r];
      }
    }
    alignas(64) double diagonal[kGroup][kGroup] = {};  // -T_aa
    for (int row = kGroup - 1; row >= 0; row--) {
      const double pivot = 1 / halves[a + row];
      double sums[kGroup] = {};
      for (int j = row + 1; j < kGroup; j++) {
        for (int col = 0; col < kGroup; col++) sums[col] += factors[row][a + j] * diagonal[j][col];
      }
      for (int col = 0; col < kGroup; col++) diagonal[row][col] = -pivot * sums[col];
      diagonal[row][row] = -pivot;
    }
    for (int row = 0; row < kGroup; row++) {
      for (int64_t col = 0; col < a; col++) inverse[a + row][col] = 0;
      for (int64_t col = 0; col < kGroup; col++) inverse[a + row][a + col] = diagonal[row][col];
    }
    for (int64_t row = 0; row < kGroup; row += kRows) {  // from the first: row j of the sums is not needed before row j
      for (int64_t col = next; col < width; col += kDraw) {
        Doubles sums[kRows] = {};
        for (int64_t j = row; j < kGroup; j++) {
          for (int r = 0; r < kRows; r++) sums[r] += diagonal[row + r][j] * at(inverse[a + j] + col);
        }
        for (int r = 0; r < kRows; r++) at(inverse[a + row + r] + col) = sums[r];
      }
    }
    for (int64_t row = a; row < next; row++) {
      for (int64_t col = 0; col < width; col += kDraw) {
        *reinterpret_cast<UnalignedSingles*>(t + row * width + col) = rounded(at(inverse[row] + col));
      }
    }
  }
}

void draw(int64_t m, int64_t k, int64_t block, uint64_t seed, uint64_t sequence, float* reflections) {
  const Sizes s(m, k);
  const int64_t rows = s.length(block), width = s.width(block), first = s.first(block);
  float* v = reflections + s.offset(block);
  double squares[kBlock];
  gaussian(seed, sequence + uint64_t(first), int(std::min<int64_t>(kBlock, k - first)), m - first, rows, width, v,
           squares);
  // Of unit length, so that sums of products are of one size throughout.
  alignas(64) float scales[kBlock];
  for (int64_t j = 0; j < width; j++) {
    float unused = 0;
    float& head = j < rows ? v[j * width + j] : unused;
    const double x = head;
    head = float(x + std::copysign(std::sqrt(squares[j]), x >= 0 ? 1. : -1.));
    const double square = squares[j] - x * x + double(head) * head;
    scales[j] = square > 0 ? float(1 / std::sqrt(square)) : 0;
  }
  alignas(64) double halves[kBlock] = {};
  alignas(64) float gram[kBlock * kBlock];
  for (int64_t chunk = 0; chunk < rows; chunk += kBlock) {
    const int64_t end = std::min(chunk + kBlock, rows);
    for (int64_t j = 0; j < width; j += kDraw) {
      Doubles sum{};
      const Singles scale = *reinterpret_cast<const UnalignedSingles*>(scales + j);
      for (int64_t l = chunk; l < end; l++) {
        auto* at = reinterpret_cast<UnalignedSingles*>(v + l * width + j);
        *at *= scale;
        const Doubles wide = widened(*at);
        sum += wide * wide;
      }
      for (int lane = 0; lane < kDraw; lane++) halves[j + lane] += sum[lane] / 2;
    }
    for (int64_t j = 0; j < width; j += kRows) {
      const int64_t column = j / kGroup * kGroup;
      rowsOf({v + chunk * width + j, 1, width}, v + chunk * width + column, width, gram + j * width + column, width,
             width - column, chunk == 0 ? std::min(j, end) : 0, end - chunk, chunk > 0);
    }
  }
  for (int64_t j = 0; j < width; j++) halves[j] = halves[j] > 0 ? halves[j] : 1;
  invert(gram, halves, width, v + rows * width);
}

void columns(int64_t m, int64_t k, int64_t index, float gain, int32_t transposed, const float* reflections, float* dst,
             float* workspace) {
  const Sizes s(m, k);
  const int64_t from = s.first(index), width = s.width(index), used = std::min<int64_t>(kBlock, k - from);
  float *x = workspace, *y = x + kBlock * kBlock, *panel = y + kBlock * kBlock;
  for (int64_t block = index; block >= 0; block--) {
    const int64_t first = s.first(block), length = s.length(block), terms = s.width(block);
    const float *v = reflections + s.offset(block), *t = v + length * terms;
    float* q = panel + first * width;
    const bool own = block == index;
    if (own) {
      std::fill_n(q, std::min<int64_t>(kBlock, length) * width, 0.f);
      for (int64_t j = 0; j < used; j++) q[j * width + j] = v[j * terms + j] >= 0 ? -gain : gain;
    }
    // X = V^T Q, Y = -T X, Q += V Y
    const int64_t begin = own ? 0 : kBlock, end = own ? std::min<int64_t>(kBlock, length) : length;
    for (int64_t chunk = begin; chunk < end; chunk += kBlock) {
      const int64_t count = std::min<int64_t>(kBlock, end - chunk);
      for (int64_t j = 0; j < terms; j += kRows) {
        rowsOf({v + chunk * terms + j, 1, terms}, q + chunk * width, width, x + j * width, width, width,
               own ? std::min(j, count) : 0, count, chunk > begin);
      }
    }
    for (int64_t j = 0; j < terms; j += kRows) {
      rowsOf({t + j * terms, terms, 1}, x, width, y + j * width, width, width, j, terms, false);
    }
    for (int64_t l = 0; l < length; l += kRows) {
      rowsOf({v + l * terms, terms, 1}, y, width, q + l * width, width, width, 0, std::min(terms, l + kRows),
             own ? l < kBlock : l >= kBlock);
    }
  }
  if (!transposed) {
    for (int64_t l = 0; l < m; l++) std::copy_n(panel + l * width, used, dst + l * k + from);
  } else {
    for (int64_t l = 0; l < m; l += kGroup) {
      const int64_t count = std::min<int64_t>(kGroup, m - l);
      for (int64_t j = 0; j < used; j++) {
        for (int64_t i = 0; i < count; i++) dst[(from + j) * m + l + i] = panel[(l + i) * width + j];
      }
    }
  }
}

int64_t reflectionBytes(int64_t m, int64_t k) { return Sizes(m, k).reflections() * int64_t(sizeof(float)); }
int64_t panelBytes(int64_t m, int64_t k) { return Sizes(m, k).panel() * int64_t(sizeof(float)); }

}  // namespace orthogonal
}  // namespace
