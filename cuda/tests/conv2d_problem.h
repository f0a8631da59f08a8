// A convolution problem: its sizes, how a launcher fills the kernels' parameters from them, and the
// oracle (direct loops with double accumulation).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <string>
#include <vector>

#include "conv2d.cuh"

struct Problem {
  int n, h, w, ic, oc, kh, kw, sh, sw, pt, pl, pb, pr, dh, dw;

  int oh() const { return (h + pt + pb - dh * (kh - 1) - 1) / sh + 1; }
  int ow() const { return (w + pl + pr - dw * (kw - 1) - 1) / sw + 1; }
  bool valid() const { return dh * (kh - 1) < h + pt + pb && dw * (kw - 1) < w + pl + pr; }
  int columns() const { return kh * kw * ic; }
  size_t srcSize() const { return size_t(n) * h * w * ic; }
  size_t dstSize() const { return size_t(n) * oh() * ow() * oc; }
  size_t weightsSize() const { return size_t(oc) * columns(); }
  double multiplyAdds() const { return double(dstSize()) * columns(); }
  std::string name() const {
    char text[160];
    std::snprintf(text, sizeof(text), "n%d %dx%dx%d -> %dx%dx%d k%dx%d s%dx%d p%d,%d,%d,%d d%dx%d",
                  n, h, w, ic, oh(), ow(), oc, kh, kw, sh, sw, pt, pl, pb, pr, dh, dw);
    return text;
  }
};

inline int ceilDiv(int a, int b) { return (a + b - 1) / b; }
inline int roundUp(int a, int b) { return ceilDiv(a, b) * b; }

// Everything but the pointers, scale and slope. elementBytes is that of the storage type.
inline Conv2dParams gatherParams(const Problem& q, bool dgrad, int blockM, int blockN,
                                 int elementBytes, unsigned& blocks, int columnTiles = 1) {
  Conv2dParams p{};
  int const perVector = 16 / elementBytes;
  p.scale = 1;
  p.slope = 1;
  p.batch = q.n;
  p.inH = dgrad ? q.oh() : q.h;
  p.inW = dgrad ? q.ow() : q.w;
  p.inC = dgrad ? q.oc : q.ic;
  p.inCPadded = roundUp(p.inC, perVector);
  p.outH = dgrad ? q.h : q.oh();
  p.outW = dgrad ? q.w : q.ow();
  p.outC = dgrad ? q.ic : q.oc;
  p.vectorOut = p.outC % perVector == 0;
  p.kernelH = q.kh;
  p.kernelW = q.kw;
  p.strideH = q.sh;
  p.strideW = q.sw;
  p.dilationH = q.dh;
  p.dilationW = q.dw;
  p.padTop = q.pt;
  p.padLeft = q.pl;
  p.gridH = dgrad ? ceilDiv(q.h, q.sh) : q.oh();
  p.gridW = dgrad ? ceilDiv(q.w, q.sw) : q.ow();
  p.tapStepH = dgrad ? q.sh / std::gcd(q.sh, q.dh) : 1;
  p.tapStepW = dgrad ? q.sw / std::gcd(q.sw, q.dw) : 1;
  int const phasesH = dgrad ? std::min(q.sh, q.h) : 1;
  int const phasesW = dgrad ? std::min(q.sw, q.w) : 1;
  int const tilesM = ceilDiv(q.n * p.gridH * p.gridW, blockM);
  int const tilesN = ceilDiv(p.outC, blockN * columnTiles);
  p.columnTiles = columnTiles;
  p.byTilesN = FastDiv::of(tilesN);
  p.byTilesM = FastDiv::of(tilesM);
  p.byPhasesW = FastDiv::of(phasesW);
  p.byGridPixels = FastDiv::of(p.gridH * p.gridW);
  p.byGridW = FastDiv::of(p.gridW);
  p.byInCPadded = FastDiv::of(p.inCPadded);
  blocks = unsigned(phasesH) * phasesW * tilesM * tilesN;
  return p;
}

// Everything but the pointers; splits is what is asked for and what comes out.
inline Conv2dWgradParams wgradParams(const Problem& q, int blockM, int blockN, int blockK,
                                     int& splits, unsigned& blocks) {
  Conv2dWgradParams p{};
  p.pixels = q.n * q.oh() * q.ow();
  p.pixelsPerSplit = std::max(blockK, roundUp(ceilDiv(p.pixels, splits), blockK));
  splits = std::max(1, ceilDiv(p.pixels, p.pixelsPerSplit));
  p.columns = q.columns();
  p.splitStride = splits == 1 ? 0 : roundUp(int(q.weightsSize()) + q.oc, 4);
  p.vectorOut = p.columns % 4 == 0;
  p.inH = q.h;
  p.inW = q.w;
  p.inC = q.ic;
  p.outC = q.oc;
  p.strideH = q.sh;
  p.strideW = q.sw;
  p.dilationH = q.dh;
  p.dilationW = q.dw;
  p.padTop = q.pt;
  p.padLeft = q.pl;
  int const tilesM = ceilDiv(q.oc, blockM);
  int const tilesN = ceilDiv(p.columns, blockN);
  p.byTilesN = FastDiv::of(tilesN);
  p.byTilesM = FastDiv::of(tilesM);
  p.byOutPixels = FastDiv::of(q.oh() * q.ow());
  p.byOutW = FastDiv::of(q.ow());
  p.byUnit = FastDiv::of(q.ic % 64 == 0 ? 64 : q.ic);
  p.byTaps = FastDiv::of(q.kh * q.kw);
  p.byKernelW = FastDiv::of(q.kw);
  blocks = unsigned(splits) * tilesM * tilesN;
  return p;
}

// A linear result and the sum of its terms' magnitudes, which bounds its rounding error.
struct Sums {
  std::vector<double> value;
  std::vector<double> magnitude;
  explicit Sums(size_t size) : value(size), magnitude(size) {}
  void add(size_t at, double term) {
    value[at] += term;
    magnitude[at] += std::fabs(term);
  }
};

// Calls visit(src index, weights index, dst index) for every product of the convolution.
template <class Visit>
void forEachProduct(const Problem& q, Visit visit) {
  for (int n = 0; n < q.n; ++n) {
    for (int p = 0; p < q.oh(); ++p) {
      for (int x = 0; x < q.ow(); ++x) {
        for (int r = 0; r < q.kh; ++r) {
          for (int s = 0; s < q.kw; ++s) {
            int const iy = p * q.sh - q.pt + r * q.dh;
            int const ix = x * q.sw - q.pl + s * q.dw;
            if (iy < 0 || iy >= q.h || ix < 0 || ix >= q.w) {
              continue;
            }
            size_t const src = ((size_t(n) * q.h + iy) * q.w + ix) * q.ic;
            size_t const dst = ((size_t(n) * q.oh() + p) * q.ow() + x) * q.oc;
            for (int k = 0; k < q.oc; ++k) {
              size_t const weights = ((size_t(k) * q.kh + r) * q.kw + s) * q.ic;
              for (int c = 0; c < q.ic; ++c) {
                visit(src + c, weights + c, dst + k);
              }
            }
          }
        }
      }
    }
  }
}
