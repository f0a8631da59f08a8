// emulator_tests [PREFIX...]: runs the tests whose names start so; all without arguments.
// emulator_tests soak SECONDS [SEED]: runs random cases against their models, one after the other, for as long; each from a seed of its own,
// which a failure names.
#include <chrono>

#include "harness.h"

namespace {

void reset(uint64_t seed) {
  jtreluEmulatorClear();
  jtreluEmulatorSetSeed(seed);
  jtreluEmulatorSetThreads(1);
  jtreluEmulatorSetStrict(1);
}

int soak(double seconds, uint64_t seed) {
  using Clock = std::chrono::steady_clock;
  const auto end = Clock::now() + std::chrono::duration<double>(seconds);
  auto& all = Case::all();
  std::vector<long> ran(all.size());
  long failed = 0, total = 0;
  for (; Clock::now() < end && failed < 10; seed++, total++) {
    const size_t k = seed % all.size();
    reset(seed % 4 ? seed : 0);
    Random random((unsigned)seed);
    ran[k]++;
    try {
      all[k].run(random);
    } catch (const Failure& f) {
      failed++;
      printf("FAILED %s, seed %llu\n  %s\n", all[k].name, (unsigned long long)seed, f.text.c_str());
    }
  }
  for (size_t k = 0; k < all.size(); k++) printf("%s: %ld cases\n", all[k].name, ran[k]);
  printf("%ld cases, %ld checks, %ld failed\n", total, checks, failed);
  return failed || !total;
}

}  // namespace

int main(int count, char** arguments) {
  void* context;
  if (cuInit(0) || cuDevicePrimaryCtxRetain(&context, 0) || cuCtxSetCurrent(context)) {
    puts("no emulated device");
    return 1;
  }
  if (count > 2 && !strcmp(arguments[1], "soak"))
    return soak(atof(arguments[2]), count > 3 ? strtoull(arguments[3], nullptr, 10) : 0);
  int failed = 0, ran = 0;
  for (auto& t : Test::all()) {
    bool wanted = count < 2;
    for (int i = 1; i < count; i++) wanted |= strncmp(t.name, arguments[i], strlen(arguments[i])) == 0;
    if (!wanted) continue;
    ran++;
    reset(0);
    try {
      t.run();
    } catch (const Failure& f) {
      failed++;
      printf("FAILED %s\n  %s\n", t.name, f.text.c_str());
    }
  }
  printf("%d tests, %ld checks, %d failed\n", ran, checks, failed);
  return failed || !ran;
}
