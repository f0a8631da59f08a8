// Max-pooling with the winner's place.
//
//   forward   out[n,p,q,c] = max over the window of src; argmax[n,p,q,c] = r * kernel + s of the
//             first maximum in row-major order; a NaN wins; padding never does
//   backward  out[n,y,x,c] = ([out +] sum of diff[n,p,q,c] over the windows it won) * psi'(src)
//
// Where `marked`, argmax has its highest bit set for a maximum above 0, and backward takes psi' from
// that instead of src, unless it adds to out: then what won nothing is multiplied by psi' as well.
//
// Layout NHWC. A thread owns one location and one pack of channels (16 bytes where the channel count
// divides and all pointers are aligned, else one channel); the backward pass gathers, so that no two
// threads write one element and the sum has a fixed order. Threads: 256; no shared memory; aims at
// 64 registers. Bound: memory. Limits: kernel <= 15. Oracle: MaxPool2dContract.
#include "storage.cuh"

struct MaxPoolParameters {
  const void* src;
  const void* diff;
  void* argmax;
  void* out;
  long long packs;  // threads with work: locations of the output times packs of channels
  int h, w, c, oh, ow;
  int kernel, stride, pad;
  Rectifier rectifier;
  int accumulate;
  int derivative;
  int marked;
  int reserved;
};

constexpr int kThreads = 256;
constexpr int kPositive = 128;  // the bit of argmax

struct Location {
  long long n;
  int y, x, c;
};

template <int N>
__device__ __forceinline__ Location locate(long long pack, int h, int w, int c) {
  Location at;
  long long rest = divide(pack, c / N, &at.c);
  at.c *= N;
  rest = divide(rest, w, &at.x);
  at.n = divide(rest, h, &at.y);
  return at;
}

__device__ __forceinline__ long long offset(long long n, int y, int x, int c, int h, int w,
                                            int channels) {
  return ((n * h + y) * w + x) * channels + c;
}

template <int N, typename T>
__device__ __forceinline__ void forward(const MaxPoolParameters& p, long long pack) {
  const Location at = locate<N>(pack, p.oh, p.ow, p.c);
  const T* src = static_cast<const T*>(p.src);
  const int top = at.y * p.stride - p.pad;
  const int left = at.x * p.stride - p.pad;
  const int r_begin = max(0, -top);
  const int s_begin = max(0, -left);
  const int r_end = min(p.kernel, p.h - top);
  const int s_end = min(p.kernel, p.w - left);
  float best[N];
  int place[N];
#pragma unroll
  for (int lane = 0; lane < N; ++lane) {
    best[lane] = 0;
    place[lane] = -1;
  }
#pragma unroll 1
  for (int r = r_begin; r < r_end; ++r) {
    long long i = offset(at.n, top + r, left + s_begin, at.c, p.h, p.w, p.c);
#pragma unroll 1
    for (int s = s_begin; s < s_end; ++s, i += p.c) {
      const Pack<T, N> x = load<N>(src, i, i + N, true);
#pragma unroll
      for (int lane = 0; lane < N; ++lane) {
        const float value = widen(x.get(lane));
        const bool first_nan = value != value && best[lane] == best[lane];
        if (place[lane] < 0 || value > best[lane] || first_nan) {
          best[lane] = value;
          place[lane] = r * p.kernel + s;
        }
      }
    }
  }
  Pack<T, N> maximum;
  Pack<u8, N> winner;
#pragma unroll
  for (int lane = 0; lane < N; ++lane) {
    maximum.put(lane, narrow<T>(best[lane]));
    const int mark = p.marked && best[lane] > 0 ? kPositive : 0;
    winner.put(lane, u8{static_cast<unsigned char>(place[lane] + mark)});
  }
  const long long o = pack * N;
  store<N>(static_cast<T*>(p.out), o, o + N, true, maximum);
  store<N>(static_cast<u8*>(p.argmax), o, o + N, true, winner);
}

template <int N, typename T>
__device__ __forceinline__ void backward(const MaxPoolParameters& p, long long pack) {
  const Location at = locate<N>(pack, p.h, p.w, p.c);
  const T* diff = static_cast<const T*>(p.diff);
  const u8* argmax = static_cast<const u8*>(p.argmax);
  T* out = static_cast<T*>(p.out);
  const long long i = pack * N;
  const int bits = p.marked ? kPositive - 1 : 255;  // of a place
  float sum[N];
  unsigned positive = 0;  // by lane, of what won
#pragma unroll
  for (int lane = 0; lane < N; ++lane) {
    sum[lane] = 0;
  }
  if (p.accumulate) {
    const Pack<T, N> old = load<N>(out, i, i + N, true);
#pragma unroll
    for (int lane = 0; lane < N; ++lane) {
      sum[lane] = widen(old.get(lane));
    }
  }
  // Windows that cover this location: p*stride - pad <= y < p*stride - pad + kernel.
  const int y = at.y + p.pad;
  const int x = at.x + p.pad;
  const int p_begin = y < p.kernel ? 0 : (y - p.kernel) / p.stride + 1;
  const int q_begin = x < p.kernel ? 0 : (x - p.kernel) / p.stride + 1;
  const int p_end = min(p.oh, y / p.stride + 1);
  const int q_end = min(p.ow, x / p.stride + 1);
#pragma unroll 1
  for (int row = p_begin; row < p_end; ++row) {
#pragma unroll 1
    for (int column = q_begin; column < q_end; ++column) {
      const long long o = offset(at.n, row, column, at.c, p.oh, p.ow, p.c);
      const int place = (y - row * p.stride) * p.kernel + (x - column * p.stride);
      const Pack<u8, N> winner = load<N>(argmax, o, o + N, true);
      const Pack<T, N> gradient = load<N>(diff, o, o + N, true);
#pragma unroll
      for (int lane = 0; lane < N; ++lane) {
        if ((winner.get(lane).bits & bits) == place) {
          sum[lane] += widen(gradient.get(lane));
          positive |= (winner.get(lane).bits & kPositive) != 0 ? 1u << lane : 0;
        }
      }
    }
  }
  if (p.derivative && p.marked && !p.accumulate) {
#pragma unroll
    for (int lane = 0; lane < N; ++lane) {
      sum[lane] *= p.rectifier.derivative((positive >> lane & 1) != 0 ? 1.0f : 0.0f);
    }
  } else if (p.derivative) {
    const Pack<T, N> source = load<N>(static_cast<const T*>(p.src), i, i + N, true);
#pragma unroll
    for (int lane = 0; lane < N; ++lane) {
      sum[lane] *= p.rectifier.derivative(widen(source.get(lane)));
    }
  }
  Pack<T, N> result;
#pragma unroll
  for (int lane = 0; lane < N; ++lane) {
    result.put(lane, narrow<T>(sum[lane]));
  }
  store<N>(out, i, i + N, true, result);
}

// The host chooses: packs of 16 bytes, or _scalar where channels or addresses do not allow it.
template <typename T>
__device__ __forceinline__ void max_pool_forward(const MaxPoolParameters& p) {
  const long long pack = static_cast<long long>(blockIdx.x) * kThreads + threadIdx.x;
  if (pack < p.packs) {
    forward<kPackOf<T>, T>(p, pack);
  }
}

template <typename T>
__device__ __forceinline__ void max_pool_forward_scalar(const MaxPoolParameters& p) {
  const long long pack = static_cast<long long>(blockIdx.x) * kThreads + threadIdx.x;
  if (pack < p.packs) {
    forward<1, T>(p, pack);
  }
}

template <typename T>
__device__ __forceinline__ void max_pool_backward(const MaxPoolParameters& p) {
  const long long pack = static_cast<long long>(blockIdx.x) * kThreads + threadIdx.x;
  if (pack < p.packs) {
    backward<kPackOf<T>, T>(p, pack);
  }
}

template <typename T>
__device__ __forceinline__ void max_pool_backward_scalar(const MaxPoolParameters& p) {
  const long long pack = static_cast<long long>(blockIdx.x) * kThreads + threadIdx.x;
  if (pack < p.packs) {
    backward<1, T>(p, pack);
  }
}

ENTRY_POINTS(max_pool_forward, MaxPoolParameters, kThreads)
ENTRY_POINTS(max_pool_forward_scalar, MaxPoolParameters, kThreads)
ENTRY_POINTS(max_pool_backward, MaxPoolParameters, kThreads)
ENTRY_POINTS(max_pool_backward_scalar, MaxPoolParameters, kThreads)
