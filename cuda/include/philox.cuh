// Philox4x32-10 (Salmon et al., SC 2011); the same streams as io.jtrelu.backend.Philox.
#pragma once

struct PhiloxBlock {
  unsigned word[4];
};

__device__ __forceinline__ PhiloxBlock philox(unsigned long long seed, unsigned long long sequence,
                                              unsigned long long block) {
  unsigned c0 = static_cast<unsigned>(block);
  unsigned c1 = static_cast<unsigned>(block >> 32);
  unsigned c2 = static_cast<unsigned>(sequence);
  unsigned c3 = static_cast<unsigned>(sequence >> 32);
  unsigned k0 = static_cast<unsigned>(seed);
  unsigned k1 = static_cast<unsigned>(seed >> 32);
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    const unsigned high0 = __umulhi(0xD2511F53u, c0);
    const unsigned low0 = 0xD2511F53u * c0;
    const unsigned high1 = __umulhi(0xCD9E8D57u, c2);
    const unsigned low1 = 0xCD9E8D57u * c2;
    c0 = high1 ^ c1 ^ k0;
    c1 = low1;
    c2 = high0 ^ c3 ^ k1;
    c3 = low0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

// A word as a uniform number in (0, 1): (top 24 bits + 1/2) / 2^24, exact.
__device__ __forceinline__ float uniform(unsigned word) {
  return (static_cast<float>(word >> 8) + 0.5f) * 0x1p-24f;
}
