// Findings of the checkers: one place where everything that is wrong with a kernel or a call is collected.
#pragma once
#include <cstdint>
#include <deque>
#include <mutex>
#include <string>

namespace emu {

struct Finding {
  bool warning = false;  // an oddity that cannot change results; counted apart
  std::string kind;  // a stable word: out_of_bounds, misaligned, use_after_free, uninitialised, shared_race, ...
  std::string kernel;
  int line = 0;  // line of PTX
  std::string instruction;
  std::string sourceFile;
  int sourceLine = 0;
  bool hasThread = false;
  unsigned block[3] = {0, 0, 0}, thread[3] = {0, 0, 0};
  std::string space;  // address space, "" where no address is involved
  uint64_t address = 0;
  int bytes = 0;
  std::string message;
  uint64_t count = 1;  // further findings at the same instruction and of the same kind are only counted

  std::string text() const;
  std::string json() const;
};

class Reports {
 public:
  void add(Finding f);
  void clear();
  uint64_t errors();
  uint64_t warnings();
  std::string text();
  std::string json();

 private:
  std::mutex mutex;
  std::deque<Finding> findings;
  uint64_t errorCount = 0, warningCount = 0;
};

Reports& reports();

/// Text as a JSON string with its quotes.
std::string quoted(const std::string& s);

}  // namespace emu
