// emulator_tests [PREFIX...]: runs the tests whose names start so; all without arguments.
#include "harness.h"

int main(int count, char** arguments) {
  void* context;
  if (cuInit(0) || cuDevicePrimaryCtxRetain(&context, 0) || cuCtxSetCurrent(context)) {
    puts("no emulated device");
    return 1;
  }
  int failed = 0, ran = 0;
  for (auto& t : Test::all()) {
    bool wanted = count < 2;
    for (int i = 1; i < count; i++) wanted |= strncmp(t.name, arguments[i], strlen(arguments[i])) == 0;
    if (!wanted) continue;
    ran++;
    jtreluEmulatorClear();
    jtreluEmulatorSetSeed(0);
    jtreluEmulatorSetThreads(1);
    jtreluEmulatorSetStrict(1);
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
