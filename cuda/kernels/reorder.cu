// Changes of layout, NCHW to NHWC, KCRS to KRSC and back: each matrix of a batch transposed.
//
//   out[i][c][r] = in[i][r][c]      i < batch, r < rows, c < cols
//
// Elements are moved as they are, 1, 2 or 4 bytes each. A block moves one 64 x 64 tile through shared
// memory, so that both sides are accessed in runs along memory; a word per element and the odd pitch
// keep both accesses to shared memory free of bank conflicts. Threads: 256, each 16 elements, all of
// whose loads are issued before the first is used; 16.25 KiB of static shared memory; aims at 40
// registers. Bound: memory, one pass over each side; with 64 elements or more on both sides and rows that
// begin on 32 bytes no sector is touched twice. Grid: batch * tiles down * tiles across, in one
// dimension. Limits: none but the grid's (2^31 tiles). Oracle: ReorderContract.

namespace {

constexpr int kTile = 64;
constexpr int kThreads = 256;
constexpr int kRowsAtOnce = kThreads / 32;
constexpr int kSteps = kTile / kRowsAtOnce;

}  // namespace

struct ReorderParameters {
  const void* in;
  void* out;
  long long rows;
  long long cols;
  long long tilesDown;  // ceil(rows / 64)
  long long tilesAcross;  // ceil(cols / 64)
};

template <typename T>
__device__ __forceinline__ void reorder(const ReorderParameters& p) {
  __shared__ unsigned tile[kTile][kTile + 1];

  const long long matrix = blockIdx.x / (p.tilesDown * p.tilesAcross);
  const long long within = blockIdx.x % (p.tilesDown * p.tilesAcross);
  const long long top = within / p.tilesAcross * kTile;
  const long long left = within % p.tilesAcross * kTile;
  const T* in = static_cast<const T*>(p.in) + matrix * p.rows * p.cols;
  T* out = static_cast<T*>(p.out) + matrix * p.rows * p.cols;
  const int lane = threadIdx.x % 32;
  const int first = threadIdx.x / 32;

  T x[kSteps][2];
#pragma unroll
  for (int step = 0; step < kSteps; ++step) {
    const long long r = top + first + step * kRowsAtOnce;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const long long c = left + lane + half * 32;
      x[step][half] = r < p.rows && c < p.cols ? in[r * p.cols + c] : T{};
    }
  }
#pragma unroll
  for (int step = 0; step < kSteps; ++step) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      tile[first + step * kRowsAtOnce][lane + half * 32] = x[step][half];
    }
  }
  __syncthreads();
#pragma unroll
  for (int step = 0; step < kSteps; ++step) {
    const int column = first + step * kRowsAtOnce;
    const long long c = left + column;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = lane + half * 32;
      const long long r = top + row;
      if (r < p.rows && c < p.cols) {
        out[c * p.rows + r] = static_cast<T>(tile[row][column]);
      }
    }
  }
}

#define REORDER(bytes, T)                                                                          \
  extern "C" __global__ void __launch_bounds__(kThreads)                                           \
      reorder_##bytes(const __grid_constant__ ReorderParameters p) {                               \
    reorder<T>(p);                                                                                 \
  }

REORDER(1, unsigned char)
REORDER(2, unsigned short)
REORDER(4, unsigned)
